//! Whether the machine is ours at this moment: a virtual CPU often shares its core with a stranger, who
//! can halve its speed.
//!
//! Two threads of `bench.c` run its empty loop on two CPUs for some milliseconds. While they are slower
//! than at their best, a measurement waits, and one that such a time follows is made again, as far as
//! that can be had: the first try that nobody disturbed counts, or the last one.

use super::user::{Cost, parse};
use anyhow::ensure;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Slower than the best by more than this: somebody else is there.
const TOLERANCE: f64 = 1.12;
/// Runs at most for each that is asked for.
const TRIES: usize = 5;
/// Looks before each run at most, a tenth of a second apart.
const PATIENCE: usize = 30;
/// Looks at the start, for the best.
const LOOKS: usize = 20;

/// The machine at its best.
pub struct Quiet<'a> {
    program: &'a Path,
    best_ns: f64,
    counted: usize,
    undisturbed: usize,
}

impl Quiet<'_> {
    /// Looks how fast the machine is at its best. `program` is `bench.c`, compiled.
    pub fn new(program: &Path) -> anyhow::Result<Quiet<'_>> {
        let looks: Vec<Cost> = (0..LOOKS).map(|_| look(program)).collect::<anyhow::Result<_>>()?;
        let best_ns = looks.iter().map(|cost| cost.median_ns).fold(f64::MAX, f64::min);
        Ok(Quiet { program, best_ns, counted: 0, undisturbed: 0 })
    }

    /// Runs `measure` until it stood between two quiet looks, or often enough.
    pub fn run<T>(&mut self, mut measure: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.counted += 1;
        let mut tries = 0;
        loop {
            let before = self.wait()?;
            let result = measure()?;
            tries += 1;
            let undisturbed = before && self.is_quiet()?;
            if undisturbed || tries == TRIES {
                self.undisturbed += usize::from(undisturbed);
                return Ok(result);
            }
        }
    }

    /// In words, for the section.
    pub fn share(&self) -> String {
        format!(
            "Runs beside which a neighbour of the virtual machine slowed a core down were repeated; {} of the {} \
             that count were undisturbed.",
            self.undisturbed, self.counted
        )
    }

    /// Waits for a quiet moment; false if none came.
    pub fn wait(&self) -> anyhow::Result<bool> {
        for _ in 0..PATIENCE {
            if self.is_quiet()? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    }

    fn is_quiet(&self) -> anyhow::Result<bool> {
        Ok(look(self.program)?.cpu_ns <= self.best_ns * TOLERANCE)
    }
}

fn look(program: &Path) -> anyhow::Result<Cost> {
    let output = Command::new(program).args(["empty", "500", "2"]).output()?;
    ensure!(output.status.success(), "the empty loop failed");
    parse(&output.stdout)
}
