//! What `tests/evidence/instructions.py` counts the instructions of: blocks of 4 KiB, sealed, or sealed and opened.
//!
//! It is run once with N and once with 2 N blocks. Half of the difference is the work itself; the account, its threads and
//! the start of the process, which both runs have, fall out.

use std::env::args;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, Engine, ObjectId};

const BLOCK: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cpu"] => println!("{}", cpu()),
        ["aws-lc", work, blocks] => run(Engine::Fastest, work, blocks.parse()?)?,
        ["portable", work, blocks] => run(Engine::Portable, work, blocks.parse()?)?,
        _ => return Err("instructions cpu | instructions aws-lc|portable seal|seal-open BLOCKS".into()),
    }
    Ok(())
}

fn run(engine: Engine, work: &str, blocks: u64) -> Result<(), Box<dyn Error>> {
    let opens = match work {
        "seal" => false,
        "seal-open" => true,
        _ => return Err("seal or seal-open".into()),
    };
    let folder = tempfile::tempdir()?;
    let kms = LocalKms::create(folder.path().join("kms.json"))?;
    kms.create_key("count", KeyOptions::default())?;
    // The longest interval: no refresh falls into a run.
    let cache = AekCache::builder().engine(engine).refresh_every(Duration::from_secs(60)).build()?;
    let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("count")))?;
    let permit = account.permit()?;
    let object = ObjectId::random();

    let mut data = vec![0x5A; BLOCK];
    for index in 0..blocks {
        let id = BlockId::new(object, index);
        let detached = permit.seal_detached(id, Aad::EMPTY, &mut data)?;
        if opens {
            permit.open_detached(id, Aad::EMPTY, &detached, &mut data)?;
        }
        black_box(&mut data);
    }
    Ok(())
}

/// Which of the instructions that the ciphers and the hash choose by this processor has: other ones, other counts.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let has = [
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("ssse3", is_x86_feature_detected!("ssse3")),
        ("movbe", is_x86_feature_detected!("movbe")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("sha", is_x86_feature_detected!("sha")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    let names: Vec<&str> = has.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    format!("x86-64 {}", names.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.to_owned()
}
