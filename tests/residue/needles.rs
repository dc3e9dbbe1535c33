//! What must not be found, derived from the AEK by docs/FORMAT.md with crates that the library does not derive with.

use hkdf::Hkdf;
use sha2::Sha256;
use sha2::block_api::compress256;
use sha2::digest::Digest;

/// Bytes to search for.
pub(crate) struct Needle {
    pub(crate) name: String,
    pub(crate) bytes: [u8; 32],
}

/// What one AEK leads to, in one generation.
pub(crate) struct Keys {
    pub(crate) aek: Needle,
    pub(crate) prk: Needle,
    pub(crate) states: [Needle; 2],
    name: String,
    hkdf: Hkdf<Sha256>,
}

/// What is used once, for one block.
pub(crate) struct BlockKeys {
    /// What an open holds at the same time, of each layer. Of the first, AES-256's key schedule, two round keys each: the
    /// first two are the DEK. Of the second, the DEK of ChaCha20.
    pub(crate) layers: Vec<Vec<Needle>>,
    /// What hides the inner tag.
    pub(crate) pad: Option<Needle>,
}

impl Needle {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.to_owned(), bytes: bytes.try_into().expect("32 bytes") }
    }
}

impl Keys {
    /// Of the AEK of `generation` in the layer `family`: 1 is the inner one, 2 the outer.
    pub(crate) fn derive(aek: Needle, account: &[u8], generation: u32, family: u8) -> Self {
        let name = format!("of generation {generation}, layer {family}");
        let salt = Sha256::digest([b"strongroom/v1", account, &generation.to_be_bytes(), &[family]].concat());
        let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), &aek.bytes);
        Self {
            aek,
            states: [
                Needle::new(&format!("inner HMAC state {name}"), &hmac_state(&prk, 0x36)),
                Needle::new(&format!("outer HMAC state {name}"), &hmac_state(&prk, 0x5c)),
            ],
            prk: Needle::new(&format!("PRK {name}"), &prk),
            name,
            hkdf,
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Needle> {
        [&self.aek, &self.prk].into_iter().chain(&self.states)
    }

    fn expand(&self, what: &str, info: &[u8]) -> Needle {
        let mut key = [0; 32];
        self.hkdf.expand(info, &mut key).expect("32 bytes are not too many");
        Needle::new(&format!("{what} {}", self.name), &key)
    }
}

impl BlockKeys {
    /// Of block 7 of `object`, sealed with `nonce` (R) as a standalone block under the keys of the layers of one generation.
    pub(crate) fn derive(layers: &[&Keys], object: &[u8], nonce: &[u8]) -> Self {
        let suite = u8::try_from(layers.len()).expect("1 or 2");
        let info = |label: &[u8]| [label, &[suite, 1], object, &7_u64.to_be_bytes(), nonce].concat();
        let dek = layers[0].expand("DEK", &info(b"SRD1"));
        let schedule = key_schedule(&dek.bytes);
        let round_keys =
            schedule.chunks_exact(32).zip(0..).skip(1).map(|(keys, pair)| {
                Needle::new(&format!("round keys {} and {}", 2 * pair, 2 * pair + 1), keys)
            });
        let mut of_layers = vec![round_keys.collect::<Vec<_>>()];
        of_layers[0].insert(0, dek);
        of_layers.extend(layers.get(1).map(|outer| vec![outer.expand("DEK", &info(b"SRD2"))]));
        Self { layers: of_layers, pad: layers.get(1).map(|outer| outer.expand("pad", &info(b"SRT2"))) }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Needle> {
        self.layers.iter().flatten().chain(&self.pad)
    }
}

/// SHA-256's state after the key block of HMAC (RFC 2104), as it lies in memory.
fn hmac_state(key: &[u8], pad: u8) -> Vec<u8> {
    let mut block = [pad; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    let mut state = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    compress256(&mut state, &[block]);
    state.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// FIPS 197, section 5.2, for 256-bit keys: 15 round keys of 16 bytes.
fn key_schedule(key: &[u8; 32]) -> Vec<u8> {
    let mut words: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
    let mut round_constant = 1;
    for i in 8..60 {
        let mut word = words[i - 1];
        if i % 8 == 0 {
            word.rotate_left(1);
        }
        if i % 4 == 0 {
            word = word.map(s_box);
        }
        if i % 8 == 0 {
            word[0] ^= round_constant;
            round_constant = times(round_constant, 2);
        }
        words.push(std::array::from_fn(|byte| word[byte] ^ words[i - 8][byte]));
    }
    words.concat()
}

/// FIPS 197, section 5.1.1: the inverse in GF(2^8), then an affine map.
fn s_box(byte: u8) -> u8 {
    let inverse = (0..254).fold(1, |power, _| times(power, byte));
    (0..5).fold(0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
}

/// In GF(2^8), modulo x^8 + x^4 + x^3 + x + 1.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
        b >>= 1;
    }
    product
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(|pair| digits(pair).expect("hexadecimal digits")).collect()
}

#[test]
fn the_key_schedule_is_the_published_one() {
    // FIPS 197, appendix A.3.
    let key = from_hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let schedule = key_schedule(&key.try_into().expect("32 bytes"));
    assert_eq!(schedule.len(), 240);
    assert_eq!(to_hex(&schedule[32..36]), "9ba35411");
    assert_eq!(to_hex(&schedule[236..]), "706c631e");
}
