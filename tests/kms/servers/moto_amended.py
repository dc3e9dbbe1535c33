"""moto's server, amended where the AWS KMS API Reference says what moto leaves out:

- a disabled key, and one that is pending deletion, neither encrypts nor decrypts;
- the wrong key for a ciphertext is IncorrectKeyException, and a ciphertext that names no key InvalidCiphertextException;
- a rotation on demand makes new key material, older material still decrypts, and answers name the material.

What a test shows here it shows of this reading of the reference, not of AWS. Arguments as for moto_server.
"""

import hashlib
import json
import threading

from moto.core.exceptions import JsonRESTError
from moto.kms import models, responses, utils
from moto.kms.exceptions import InvalidCiphertextException, NotFoundException
from moto.server import main


def material_id(material):
    return hashlib.sha256(b"key material id" + material).hexdigest()


def check_state(key):
    if key.key_state == "PendingDeletion":
        raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if not key.enabled:
        raise JsonRESTError("DisabledException", f"{key.arn} is disabled.")


def materials_of(key):
    """Oldest first; the last one encrypts."""
    return key.__dict__.setdefault("materials", [key.key_material])


# A key's material is exchanged for the time of a decryption.
LOCK = threading.Lock()

plain_encrypt = models.KmsBackend.encrypt
plain_to_dict = models.Key.to_dict
plain_rotate = models.KmsBackend.rotate_key_on_demand


def encrypt(self, key_id, plaintext, encryption_context):
    with LOCK:
        key = self.keys.get(self.any_id_to_key_id(key_id))
        if key is not None:
            check_state(key)
        return plain_encrypt(self, key_id, plaintext, encryption_context)


def decrypt(self, ciphertext_blob, encryption_context, key_id=None):
    """As moto's, but for the key: it is asked for always."""
    wanted = self.any_id_to_key_id(key_id)
    if wanted not in self.keys:
        raise NotFoundException(f"Key '{key_id}' does not exist")
    key = self.keys[wanted]
    check_state(key)
    try:
        named = utils._deserialize_ciphertext_blob(ciphertext_blob).key_id
    except Exception:
        raise InvalidCiphertextException()
    if named != wanted:
        if named in self.keys:
            message = "The key ID in the request does not identify a CMK that can perform this operation."
            raise JsonRESTError("IncorrectKeyException", message)
        raise InvalidCiphertextException()
    current = key.key_material
    try:
        for material in materials_of(key):
            key.key_material = material
            try:
                plaintext, _ = utils.decrypt(self.keys, ciphertext_blob, encryption_context)
            except InvalidCiphertextException:
                continue
            key.used = material_id(material)
            return plaintext, key.arn
    finally:
        key.key_material = current
    raise InvalidCiphertextException()


def answer_decrypt(self):
    context, blob = self._get_param("EncryptionContext", {}), self._get_param("CiphertextBlob")
    with LOCK:
        plaintext, arn = self.kms_backend.decrypt(blob, context, self._get_param("KeyId"))
        used = self.kms_backend.keys[arn.rsplit("/", 1)[1]].used
    plaintext = responses.base64.b64encode(plaintext).decode()
    return json.dumps({"Plaintext": plaintext, "KeyId": arn, "KeyMaterialId": used})


def rotate_key_on_demand(self, key_id):
    rotated = plain_rotate(self, key_id)
    key = self.keys[self.get_key_id(key_id)]
    with LOCK:
        materials = materials_of(key)
        key.key_material = utils.generate_master_key()
        materials.append(key.key_material)
    return rotated


def to_dict(self):
    described = plain_to_dict(self)
    described["KeyMetadata"]["CurrentKeyMaterialId"] = material_id(self.key_material)
    return described


models.KmsBackend.encrypt = encrypt
models.KmsBackend.decrypt = decrypt
models.KmsBackend.rotate_key_on_demand = rotate_key_on_demand
models.Key.to_dict = to_dict
responses.KmsResponse.decrypt = answer_decrypt

if __name__ == "__main__":
    main()
