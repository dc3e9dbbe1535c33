//! Searches this process's own memory for the key.
//!
//! The library gives its keys to nobody, but a provider sees the AEK pass. It is kept here masked with random
//! bytes, and compared so, byte by byte: the search must not bring about what it searches for. The AEK itself is
//! wiped as soon as the PRK is derived from it; what lives as long as the lease is HMAC-SHA-256's inner and outer
//! state under the PRK (docs/FORMAT.md). A process of its own derives these, for the same reason.

use std::error::Error;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use hmac::{Hmac, KeyInit, Mac};
use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use strongroom::AccountId;
use strongroom::provider::WrapInput;

/// Starts this program as the process that derives.
pub(crate) const FLAG: &str = "--derive-needles";

/// 32 bytes that are never stored as they are.
#[derive(Clone, Copy)]
pub(crate) struct Needle {
    masked: [u8; 32],
    mask: [u8; 32],
}

/// The AEK that was last unwrapped.
#[derive(Debug)]
pub(crate) struct MaskedAek(Mutex<Needle>);

/// How often each of the needles lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hits {
    pub(crate) aek: usize,
    pub(crate) hmac_states: usize,
}

impl MaskedAek {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Needle { masked: [0; 32], mask: rand::random() }))
    }

    pub(crate) fn remember(&self, secret: &WrapInput) {
        let mut needle = self.0.lock().expect("nobody panics while holding it");
        let Needle { masked, mask } = &mut *needle;
        // The last 32 of the 56 bytes are the AEK.
        let aek = &secret.expose()[WrapInput::LEN - 32..];
        for ((masked, byte), mask) in masked.iter_mut().zip(aek).zip(mask) {
            *masked = byte ^ *mask;
        }
    }

    /// The AEK, then the two HMAC states that its account's first generation leads to.
    pub(crate) fn needles(&self, account: AccountId) -> Result<[Needle; 3], Box<dyn Error>> {
        let aek = *self.0.lock().expect("nobody panics while holding it");
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let question = [&aek.masked[..], &aek.mask, account.as_bytes()].concat();
        child.stdin.take().ok_or("no pipe")?.write_all(&question)?;
        let mut states = [0; 64];
        child.stdout.take().ok_or("no pipe")?.read_exact(&mut states)?;
        child.wait()?;
        let (inner, outer) = states.split_at(32);
        let masked = |masked: &[u8]| Ok::<_, Box<dyn Error>>(Needle { masked: masked.try_into()?, ..aek });
        Ok([aek, masked(inner)?, masked(outer)?])
    }
}

impl std::fmt::Debug for Needle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Needle(..)")
    }
}

/// The other process: reads a masked AEK, its mask and the account; answers with both states, masked.
pub(crate) fn answer_with_needles() -> Result<(), Box<dyn Error>> {
    let mut question = [0; 80];
    std::io::stdin().read_exact(&mut question)?;
    let (masked, rest) = question.split_at(32);
    let (mask, account) = rest.split_at(32);
    let aek: Vec<u8> = masked.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();

    // PRK = HKDF-Extract(SHA-256("strongroom/v1" || account || generation 1 || family 1), AEK)
    let salt = Sha256::digest([b"strongroom/v1", account, &1_u32.to_be_bytes(), &[1]].concat());
    let prk = Hmac::<Sha256>::new_from_slice(&salt)?.chain_update(&aek).finalize().into_bytes();
    let mut answer = Vec::new();
    for pad in [0x36, 0x5c] {
        let mut block = [pad; 64];
        block.iter_mut().zip(prk).for_each(|(byte, key)| *byte ^= key);
        let mut state = SHA256_INITIAL;
        compress256(&mut state, &[block]);
        let bytes = state.into_iter().flat_map(u32::to_ne_bytes);
        answer.extend(bytes.zip(mask).map(|(byte, mask)| byte ^ mask));
    }
    std::io::stdout().write_all(&answer)?;
    Ok(())
}

/// Searches all memory that this process can write to.
#[cfg(target_os = "linux")]
pub(crate) fn search(needles: &[Needle; 3]) -> Result<Hits, Box<dyn Error>> {
    use std::os::unix::fs::FileExt;

    let memory = std::fs::File::open("/proc/self/mem")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut buffer = zeroize::Zeroizing::new(vec![0; CHUNK]);
    let own = buffer.as_ptr().addr()..buffer.as_ptr().addr() + CHUNK;
    let mut hits = [0; 3];
    for map in maps.lines().filter(|map| map.contains(" rw")) {
        let (from, to) = map.split(' ').next().and_then(|range| range.split_once('-')).ok_or("maps")?;
        let (mut at, to) = (usize::from_str_radix(from, 16)?, usize::from_str_radix(to, 16)?);
        while at + 32 <= to {
            let wanted = CHUNK.min(to - at);
            // A page may be gone since the list was made, or be a device's.
            let Ok(read) = memory.read_at(&mut buffer[..wanted], at as u64) else { break };
            // What lies in the buffer is a copy of other places: it does not count twice.
            let (start, end) = (own.start.clamp(at, at + read), own.end.clamp(at, at + read));
            buffer[start - at..end - at].fill(0);
            for (hits, needle) in hits.iter_mut().zip(needles) {
                *hits += buffer[..read].windows(32).filter(|window| needle.is(window)).count();
            }
            if read < wanted || at + read == to {
                break;
            }
            // The next chunk begins with what could be the start of a needle.
            at += read - 31;
        }
    }
    Ok(Hits { aek: hits[0], hmac_states: hits[1] + hits[2] })
}

impl Needle {
    /// Masks what was found rather than unmasking what is searched for.
    #[cfg(target_os = "linux")]
    fn is(&self, window: &[u8]) -> bool {
        let mut bytes = window.iter().zip(&self.mask).zip(&self.masked);
        bytes.all(|((byte, mask), masked)| byte ^ mask == *masked)
    }
}

#[cfg(target_os = "linux")]
const CHUNK: usize = 1 << 20;

/// FIPS 180-4, section 5.3.3.
const SHA256_INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
