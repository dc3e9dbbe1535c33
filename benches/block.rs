//! scratch
use std::hint::black_box;
use std::time::Instant;
use strongroom::testing::UnmanagedAccount;
use strongroom::*;
fn t(name: &str, mut f: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..3000 {
        let s = Instant::now();
        for _ in 0..64 {
            f();
        }
        best = best.min(s.elapsed().as_nanos() as f64 / 64.0);
    }
    println!("{name:<30} {best:.1}");
    best
}
fn main() {
    use aws_lc_rs::aead as al;
    let k = [7u8; 32];
    let key = al::LessSafeKey::new(al::UnboundKey::new(&al::AES_256_GCM, &k).expect("x"));
    let account = UnmanagedAccount::new(Engine::Fastest).expect("x");
    let permit = account.permit().expect("x");
    let obj = ObjectId::random();
    let mut d = vec![0u8; 512];
    t("key setup+drop", || {
        black_box(al::LessSafeKey::new(al::UnboundKey::new(&al::AES_256_GCM, black_box(&k)).expect("x")));
    });
    let raw = t("raw seal 512", || {
        let _ = black_box(
            key.seal_in_place_separate_tag(
                al::Nonce::assume_unique_for_key([1; 12]),
                al::Aad::empty(),
                &mut d,
            )
            .expect("x"),
        );
    });
    let aad = [3u8; 48];
    t("raw seal 512 48B aad", || {
        let _ = black_box(
            key.seal_in_place_separate_tag(
                al::Nonce::assume_unique_for_key([1; 12]),
                al::Aad::from(&aad[..]),
                &mut d,
            )
            .expect("x"),
        );
    });
    let aad = [3u8; 57];
    t("raw seal 512 57B aad", || {
        let _ = black_box(
            key.seal_in_place_separate_tag(
                al::Nonce::assume_unique_for_key([1; 12]),
                al::Aad::from(&aad[..]),
                &mut d,
            )
            .expect("x"),
        );
    });
    let mut st = [1u32; 8];
    let blk = [5u8; 64];
    t("2 compress", || {
        sha2::block_api::compress256(&mut st, &[blk]);
        sha2::block_api::compress256(&mut st, &[blk]);
    });
    for a in [Aad::EMPTY, Aad::new(b"tenant-42")] {
        let mut i = 0u64;
        let s = t("ours seal 512", || {
            i += 1;
            black_box(permit.seal_detached(BlockId::new(obj, i), a, &mut d).expect("x"));
        });
        println!("   overhead {:.1}", s - raw);
        let mut det: Vec<Detached> = Vec::new();
        let mut bufs = vec![[0u8; 512]; 32];
        let mut best = [f64::MAX; 4];
        for _ in 0..4000 {
            det.clear();
            let s = Instant::now();
            for (b, i) in bufs.iter_mut().zip(0..) {
                det.push(permit.seal_detached(BlockId::new(obj, i), a, b).expect("x"));
            }
            best[0] = best[0].min(s.elapsed().as_nanos() as f64 / 32.0);
            let s = Instant::now();
            for ((b, d), i) in bufs.iter_mut().zip(&det).zip(0..) {
                permit.open_detached(BlockId::new(obj, i), a, d, b).expect("x");
            }
            best[1] = best[1].min(s.elapsed().as_nanos() as f64 / 32.0);
            let mut jobs: Vec<SealJob<'_>> =
                bufs.iter_mut().zip(0..).map(|(b, i)| SealJob::new(BlockId::new(obj, i), a, b)).collect();
            let s = Instant::now();
            permit.seal_batch(&mut jobs).expect("x");
            best[2] = best[2].min(s.elapsed().as_nanos() as f64 / 32.0);
            det = jobs.iter().map(|j| *j.detached().expect("x")).collect();
            let mut jobs: Vec<OpenJob<'_>> = bufs
                .iter_mut()
                .zip(&det)
                .zip(0..)
                .map(|((b, d), i)| OpenJob::in_place(BlockId::new(obj, i), a, d, b))
                .collect();
            let s = Instant::now();
            permit.open_batch(&mut jobs).expect("x");
            best[3] = best[3].min(s.elapsed().as_nanos() as f64 / 32.0);
        }
        println!(
            "   overheads seal {:.0} open {:.0} seal batch {:.0} open batch {:.0}",
            best[0] - raw,
            best[1] - raw,
            best[2] - raw,
            best[3] - raw
        );
    }
}
