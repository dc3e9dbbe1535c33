//! The plot: GB/s of sealing against the size of a block, drawn by `tests/evidence/plot.py`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::gocryptfs::{self, Speed};
use crate::measure::Figures;
use crate::repository;

pub(crate) fn draw(names: &[&str], figures: &[Figures], gocryptfs: Option<&[Speed]>, file: &Path) {
    let folder = file.parent().expect("a file lies in a folder");
    fs::create_dir_all(folder).expect("a writable folder");
    let points = std::env::temp_dir().join(format!("strongroom-peers-{}", std::process::id()));
    fs::write(&points, text(names, figures, gocryptfs)).expect("a writable temporary folder");
    let script = repository().join("tests/evidence/plot.py");
    let drawn = Command::new("python3").arg(script).arg(&points).output().expect("python3 is installed");
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    fs::write(file, drawn.stdout).expect("a writable folder");
    fs::remove_file(points).expect("the file just written");
}

/// What plot.py reads.
fn text(names: &[&str], figures: &[Figures], gocryptfs: Option<&[Speed]>) -> String {
    let mut out = "title: Encrypting on one thread\nx: block size, bytes log\ny: GB/s log\n".to_owned();
    for (at, name) in names.iter().enumerate() {
        out += &format!("series: {name}\n");
        for Figures { size, seal, .. } in figures {
            out += &format!("{size} {}\n", seal[at]);
        }
    }
    let used = gocryptfs.into_iter().flatten().find(|speed| speed.selected);
    if let Some(Speed { cipher, gb_per_s, .. }) = used {
        out += &format!("series: gocryptfs -speed, {cipher}\n{} {gb_per_s}\n", gocryptfs::BLOCK);
    }
    out
}
