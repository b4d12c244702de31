//! Where our tracer library is, and a directory that puts it in front of a program.
//!
//! Programs load three libraries of LTTng-UST; ours stands behind all three names. An installed
//! package has the directory; a build tree has one file, for which links are made in the run
//! directory (and stay there: the program may start others later).

use super::Context;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// The names under which programs load it.
const NAMES: [&str; 3] = ["liblttng-ust.so.1", "liblttng-ust-common.so.1", "liblttng-ust-tracepoint.so.1"];
/// The file that a build makes.
const BUILT: &str = "libsillage_ust.so";

/// The directory for `LD_LIBRARY_PATH`.
pub fn directory(context: &Context) -> Result<PathBuf> {
    let given = std::env::var_os("SILLAGE_LIBDIR").map(PathBuf::from);
    if let Some(dir) = &given {
        return usable(context, dir)?
            .with_context(|| format!("SILLAGE_LIBDIR: no tracer library in {}", dir.display()));
    }
    let exe = std::env::current_exe().context("where this program is")?;
    let beside = exe.parent().unwrap_or(Path::new("/"));
    for dir in [beside.join("../lib/sillage"), beside.join("sillage-lib"), beside.to_owned()] {
        if let Some(dir) = usable(context, &dir)? {
            return Ok(dir);
        }
    }
    bail!(
        "the tracer library is not installed beside {} (build it with `cargo build -p sillage-tracer-user-abi`, \
         or name its directory with SILLAGE_LIBDIR)",
        exe.display()
    )
}

fn usable(context: &Context, dir: &Path) -> Result<Option<PathBuf>> {
    if NAMES.iter().all(|name| dir.join(name).exists()) {
        return Ok(Some(std::path::absolute(dir)?));
    }
    let built = dir.join(BUILT);
    if !built.exists() {
        return Ok(None);
    }
    let built = std::fs::canonicalize(&built).with_context(|| built.display().to_string())?;
    links(&context.place.run_dir, &built).map(Some)
}

/// A directory of links to the library, one for each library that was ever used from here.
fn links(run_dir: &Path, library: &Path) -> Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    library.hash(&mut hasher);
    let dir = run_dir.join(format!("lib-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    for name in NAMES {
        let link = dir.join(name);
        if std::fs::read_link(&link).is_ok_and(|target| target == library) {
            continue;
        }
        // Another `record` may be making the same link: whoever comes second finds it made.
        match std::os::unix::fs::symlink(library, &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| link.display().to_string());
            }
            _ => {}
        }
    }
    Ok(dir)
}
