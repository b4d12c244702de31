//! Writes the seeds of all targets to `corpus/TARGET/`.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    for (name, _) in sillage_fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        fs::create_dir_all(&directory)?;
        let seeds = sillage_fuzz::seeds::of(name);
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(format!("seed-{number:04}")), seed)?;
        }
        println!("{name}: {} seeds", seeds.len());
    }
    Ok(())
}
