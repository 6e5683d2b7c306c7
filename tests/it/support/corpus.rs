//! Corpora of the fuzz targets in `fuzz/`: every input is replayed, and the seeds in them are those
//! that the tests define.
//!
//! `SLIPSTREAM_WRITE_CORPUS=1 cargo test --test it corpus` writes the seeds anew.

use std::{fs, path::PathBuf};

/// An input and the name of its file.
pub(crate) type Seed = (&'static str, Vec<u8>);

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// Every seed is in the corpus of `target`, as it is defined.
pub(crate) fn has_seeds(target: &str, seeds: &[Seed]) {
    let write = std::env::var_os("SLIPSTREAM_WRITE_CORPUS").is_some();
    for (name, bytes) in seeds {
        let path = folder(target).join(name);
        if write {
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(fs::read(&path).ok().as_ref(), Some(bytes), "{}", path.display());
    }
}

/// `check` holds for everything in the corpus of `target`, which has `least` inputs or more.
pub(crate) fn replay(target: &str, least: usize, check: fn(&[u8])) {
    let inputs: Vec<PathBuf> = fs::read_dir(folder(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(inputs.len() >= least);
    for path in inputs {
        check(&fs::read(&path).unwrap());
    }
}
