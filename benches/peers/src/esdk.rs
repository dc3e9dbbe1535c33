//! The AWS Encryption SDK for Rust with a raw AES keyring, so that it needs no network.

use aws_esdk::client::Client;
use aws_esdk::material_providers::client::Client as Providers;
use aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use aws_esdk::material_providers::types::{AesWrappingAlg, EsdkAlgorithmSuiteId, keyring::KeyringRef};
use aws_esdk::types::aws_encryption_sdk_config::AwsEncryptionSdkConfig;
use tokio::runtime::{Builder, Runtime};

use crate::contenders::Peer;

pub(crate) struct Esdk {
    client: Client,
    keyring: KeyringRef,
    runtime: Runtime,
}

impl Esdk {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().build().expect("a runtime without threads");
        let config = AwsEncryptionSdkConfig::builder().build().expect("the defaults are valid");
        let client = Client::from_conf(config).expect("the defaults are valid");
        let config = MaterialProvidersConfig::builder().build().expect("the defaults are valid");
        let providers = Providers::from_conf(config).expect("the defaults are valid");
        let keyring = providers
            .create_raw_aes_keyring()
            .key_namespace("bench")
            .key_name("bench")
            .wrapping_key(vec![7; 32])
            .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16);
        let keyring = runtime.block_on(keyring.send()).expect("a raw keyring needs nobody");
        Self { client, keyring, runtime }
    }
}

impl Peer for Esdk {
    const NAME: &'static str = "AWS Encryption SDK";
    const CRATE: &'static str = "aws-esdk";
    const DOES: &'static str = "a message for each block: a fresh data key, wrapped, HKDF-SHA-512 with key commitment, then \
         AES-256-GCM of aws-lc-rs in frames of 4 KiB; the suite without signature, as its default adds ECDSA; a raw AES keyring \
         stands here for the KMS, which is called for each message";

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let call = self
            .client
            .encrypt()
            .plaintext(plain)
            .keyring(self.keyring.clone())
            .algorithm_suite_id(EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey);
        let sealed = self.runtime.block_on(call.send()).expect("seals");
        sealed.ciphertext.expect("a ciphertext").into_inner()
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let call = self.client.decrypt().ciphertext(sealed).keyring(self.keyring.clone());
        let opened = self.runtime.block_on(call.send()).expect("opens");
        opened.plaintext.expect("a plaintext").into_inner()
    }
}
