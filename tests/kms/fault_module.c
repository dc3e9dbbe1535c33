/* A PKCS#11 module for tests: forwards every function to the module in STRONGROOM_REAL_MODULE, but for one that the file
 * beside it, NAME.so.faults, names in one line:
 *
 *   C_Decrypt answer 0x30 2     the first two calls answer CKR_DEVICE_ERROR, without asking the real module
 *   C_Decrypt delay 0xbb8 1     the first call takes 3000 ms, and then forwards
 *   * answer 0xe0 1000          every function
 *   C_GetTokenInfo flags 0x20000 1000   forwards, and sets these flags in what is told of the token
 *   C_Decrypt length 0xffffffffffffffff 1000   says that the plaintext has this length; C_GetMechanismList: the list
 *   C_EncryptInit iv 0xab 1000          forwards, after writing this byte all over the IV of AES-GCM, as tokens in FIPS mode do
 *
 * The file is read at each call; the count begins anew when it changes. The name of each function that is called is added to
 * NAME.so.calls. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long word;
/* CK_FUNCTION_LIST of PKCS#11 2.40: a version of two bytes, and 68 functions in the standard's order. */
struct functions {
    unsigned char major, minor;
    void *function[68];
};

static struct functions *real;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char last[256];
static long calls;
/* What a function shall do besides forwarding. */
static __thread word extra;

/* Opens the file of this ending beside the module. */
static FILE *beside(const char *ending, const char *mode) {
    char path[4096];
    Dl_info info;
    if (!dladdr((void *)&calls, &info) || snprintf(path, sizeof path, "%s.%s", info.dli_fname, ending) >= (int)sizeof path)
        return NULL;
    return fopen(path, mode);
}

static void note(const char *name) {
    FILE *file = beside("calls", "a");
    if (!file)
        return;
    fprintf(file, "%s\n", name);
    fclose(file);
}

/* Nonzero: the answer. */
static word fault(const char *name) {
    char line[256] = "", wanted[64], what[16];
    unsigned long value;
    long times;
    note(name);
    extra = 0;
    FILE *file = beside("faults", "r");
    if (!file)
        return 0;
    if (!fgets(line, sizeof line, file))
        line[0] = 0;
    fclose(file);
    if (sscanf(line, "%63s %15s %lx %li", wanted, what, &value, &times) != 4)
        return 0;
    if (strcmp(wanted, "*") != 0 && strcmp(wanted, name) != 0)
        return 0;
    pthread_mutex_lock(&mutex);
    if (strcmp(line, last) != 0) {
        strcpy(last, line);
        calls = 0;
    }
    int counts = calls < times;
    if (counts)
        calls++;
    pthread_mutex_unlock(&mutex);
    if (!counts)
        return 0;
    if (strcmp(what, "delay") == 0) {
        struct timespec delay = {(time_t)(value / 1000), (long)(value % 1000 * 1000000)};
        nanosleep(&delay, NULL);
        return 0;
    }
    if (strcmp(what, "answer") != 0) {
        extra = value;
        return 0;
    }
    return value;
}

#define P1 word a
#define P2 P1, word b
#define P3 P2, word c
#define P4 P3, word d
#define P5 P4, word e
#define P6 P5, word f
#define P7 P6, word g
#define P8 P7, word h
#define A1 a
#define A2 A1, b
#define A3 A2, c
#define A4 A3, d
#define A5 A4, e
#define A6 A5, f
#define A7 A6, g
#define A8 A7, h

/* Every parameter of these functions is a word or fits in one. */
#define FUNCTIONS(X)                                                                                                   \
    X(0, Initialize, 1) X(1, Finalize, 1) X(2, GetInfo, 1) X(4, GetSlotList, 3) X(5, GetSlotInfo, 2)                   \
    X(8, GetMechanismInfo, 3) X(9, InitToken, 4) X(10, InitPIN, 3)     \
    X(11, SetPIN, 5) X(12, OpenSession, 5) X(13, CloseSession, 1) X(14, CloseAllSessions, 1) X(15, GetSessionInfo, 2)  \
    X(16, GetOperationState, 3) X(17, SetOperationState, 5) X(18, Login, 4) X(19, Logout, 1) X(20, CreateObject, 4)    \
    X(21, CopyObject, 5) X(22, DestroyObject, 2) X(23, GetObjectSize, 3) X(24, GetAttributeValue, 4)                   \
    X(25, SetAttributeValue, 4) X(26, FindObjectsInit, 3) X(27, FindObjects, 4) X(28, FindObjectsFinal, 1)             \
    X(30, Encrypt, 5) X(31, EncryptUpdate, 5) X(32, EncryptFinal, 3) X(33, DecryptInit, 3)       \
    X(35, DecryptUpdate, 5) X(36, DecryptFinal, 3) X(37, DigestInit, 2) X(38, Digest, 5)             \
    X(39, DigestUpdate, 3) X(40, DigestKey, 2) X(41, DigestFinal, 3) X(42, SignInit, 3) X(43, Sign, 5)                 \
    X(44, SignUpdate, 3) X(45, SignFinal, 3) X(46, SignRecoverInit, 3) X(47, SignRecover, 5) X(48, VerifyInit, 3)      \
    X(49, Verify, 5) X(50, VerifyUpdate, 3) X(51, VerifyFinal, 3) X(52, VerifyRecoverInit, 3) X(53, VerifyRecover, 5)  \
    X(54, DigestEncryptUpdate, 5) X(55, DecryptDigestUpdate, 5) X(56, SignEncryptUpdate, 5)                            \
    X(57, DecryptVerifyUpdate, 5) X(58, GenerateKey, 5) X(59, GenerateKeyPair, 8) X(60, WrapKey, 6) X(61, UnwrapKey, 8) \
    X(62, DeriveKey, 6) X(63, SeedRandom, 3) X(64, GenerateRandom, 3) X(65, GetFunctionStatus, 1)                      \
    X(66, CancelFunction, 1) X(67, WaitForSlotEvent, 3)

#define DEFINE(at, name, count)                                                                                        \
    static word forward_##name(P##count) {                                                                             \
        word answer = fault("C_" #name);                                                                               \
        return answer ? answer : ((word(*)(P##count))real->function[at])(A##count);                                    \
    }
FUNCTIONS(DEFINE)

static word forward_GetTokenInfo(word slot, unsigned char *info) {
    word flags, answer = fault("C_GetTokenInfo");
    if (!answer)
        answer = ((word(*)(word, unsigned char *))real->function[6])(slot, info);
    if (!answer) {
        /* After a label of 32 bytes, a manufacturer of 32, a model of 16 and a serial number of 16. */
        memcpy(&flags, info + 96, sizeof flags);
        flags |= extra;
        memcpy(info + 96, &flags, sizeof flags);
    }
    return answer;
}

struct mechanism {
    word kind;
    struct {
        unsigned char *iv;
        word length;
    } * gcm;
    word length;
};

static word forward_EncryptInit(word session, struct mechanism *mechanism, word key) {
    word answer = fault("C_EncryptInit");
    if (extra && mechanism && mechanism->kind == 0x1087)
        memset(mechanism->gcm->iv, (int)extra, mechanism->gcm->length);
    return answer ? answer : ((word(*)(word, struct mechanism *, word))real->function[29])(session, mechanism, key);
}

static word forward_Decrypt(word session, word data, word length, word out, word *out_length) {
    word answer = fault("C_Decrypt");
    if (extra) {
        *out_length = extra;
        return 0;
    }
    return answer ? answer : ((word(*)(word, word, word, word, word *))real->function[34])(session, data, length, out, out_length);
}

static word forward_GetMechanismList(word slot, word list, word *count) {
    word answer = fault("C_GetMechanismList");
    if (extra) {
        *count = extra;
        return 0;
    }
    return answer ? answer : ((word(*)(word, word, word *))real->function[7])(slot, list, count);
}

word C_GetFunctionList(struct functions **list);

static struct functions ours = {2, 40, {[3] = C_GetFunctionList}};

word C_GetFunctionList(struct functions **list) {
    const char *path = getenv("STRONGROOM_REAL_MODULE");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    word (*get)(struct functions **) = library ? (word(*)(struct functions **))dlsym(library, "C_GetFunctionList") : NULL;
    if (!get)
        return 5; /* CKR_GENERAL_ERROR */
    word answer = get(&real);
    if (answer)
        return answer;
#define FILL(at, name, count) ours.function[at] = (void *)forward_##name;
    FUNCTIONS(FILL)
    ours.function[6] = (void *)forward_GetTokenInfo;
    ours.function[34] = (void *)forward_Decrypt;
    ours.function[7] = (void *)forward_GetMechanismList;
    ours.function[29] = (void *)forward_EncryptInit;
    *list = &ours;
    return 0;
}
