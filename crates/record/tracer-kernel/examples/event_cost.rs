//! What a recorded event costs: our events and ftrace's in turns, in one run, so that whatever else the
//! machine does meets both. To be run pinned (`taskset -c 1`) and as root. Medians of the nanoseconds
//! that each adds, and their ratio to ftrace's.

use sillage_consumer::DoorbellMemory;
use sillage_ring::{Geometry, HeaderForm, Kind};
use sillage_tracer_kernel::filters::Filter;
use sillage_tracer_kernel::syscalls::{self, Abi, Side};
use sillage_tracer_kernel::{Bell, Channel, Code, Field, Kernel, Recipe, contexts, events, statedump, sys};
use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

const CALLS: u32 = 10_000;
const SWITCHES: u32 = 1_000;
const ROUNDS: usize = 31;
/// Forty bytes, the zero included.
const PATH: &std::ffi::CStr = c"/no/such/file/of/thirty-nine/characters";

/// A thing that happens, in nanoseconds for one.
type Work = fn() -> f64;

fn getpid_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::process::id());
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn status_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(PATH.to_str().map(std::path::Path::new).map(std::path::Path::exists).ok());
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// Half a turn of two threads that wake each other: one switch.
fn switch_ns() -> f64 {
    let Ok((mut near, mut far)) = std::os::unix::net::UnixStream::pair() else { return 0.0 };
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while far.read(&mut byte).is_ok_and(|read| read == 1) && far.write_all(&byte).is_ok() {}
    });
    let start = Instant::now();
    let mut byte = [0];
    for _ in 0..SWITCHES {
        if near.write_all(&byte).and_then(|()| near.read_exact(&mut byte)).is_err() {
            return 0.0;
        }
    }
    let took = start.elapsed().as_nanos() as f64;
    drop(near);
    let _ = echo.join();
    took / f64::from(2 * SWITCHES)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Something that can be switched on and off.
trait Tracer {
    fn switch(&mut self, on: bool) -> Outcome<()>;
}

struct Ours<'a> {
    channel: Channel,
    recipe: Recipe,
    contexts: Vec<Field>,
    filter: Option<&'a Filter>,
}

impl Tracer for Ours<'_> {
    fn switch(&mut self, on: bool) -> Outcome<()> {
        if !on {
            self.channel.disable(1);
            return Ok(());
        }
        let filter = self.filter;
        let guard = |code: &mut Code<'_>, no| filter.map_or(Ok(()), |filter| filter.guard(code, no));
        Ok(self.channel.enable(&self.recipe, 1, &self.contexts, &[&guard])?)
    }
}

struct Ftrace {
    instance: PathBuf,
    event: &'static str,
}

impl Tracer for Ftrace {
    fn switch(&mut self, on: bool) -> Outcome<()> {
        let enable = self.instance.join("events").join(self.event).join("enable");
        Ok(std::fs::write(enable, if on { "1" } else { "0" })?)
    }
}

/// Medians of what each adds, in turns.
fn added(work: Work, tracers: &mut [(&str, Box<dyn Tracer + '_>)]) -> Outcome<Vec<f64>> {
    let mut differences = vec![Vec::new(); tracers.len()];
    for _ in 0..ROUNDS {
        for ((_, tracer), differences) in tracers.iter_mut().zip(&mut differences) {
            let without = work();
            tracer.switch(true)?;
            work();
            let with = work();
            tracer.switch(false)?;
            differences.push(with - without);
        }
    }
    Ok(differences.into_iter().map(median).collect())
}

fn show(title: &str, work: Work, mut tracers: Vec<(&str, Box<dyn Tracer + '_>)>) -> Outcome<()> {
    let alone = median((0..ROUNDS).map(|_| work()).collect());
    println!("{title}, alone {alone:.0} ns:");
    let costs = added(work, &mut tracers)?;
    // The last one is ftrace's.
    let theirs = costs.last().copied().unwrap_or(f64::NAN);
    for ((name, _), cost) in tracers.iter().zip(&costs) {
        println!("  {name}: +{cost:.0} ns, {:.2} of ftrace's", cost / theirs);
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let kernel = Arc::new(Kernel::running()?);
    let tracefs = kernel.tracefs().ok_or("no tracefs")?;
    let instance = tracefs.join("instances").join(format!("sillage-cost-{}", std::process::id()));
    std::fs::create_dir(&instance)?;
    let outcome = measure(&kernel, &instance);
    std::fs::remove_dir(&instance)?;
    outcome
}

fn measure(kernel: &Arc<Kernel>, instance: &std::path::Path) -> Outcome<()> {
    let (cpus, _) = sys::cpus();
    let geometry = Geometry {
        kind: Kind::Ebpf,
        cpus,
        subbuf_shift: 18,
        subbuf_count: 8,
        overwrite: true,
        ordered: false,
        header: HeaderForm::Compact,
    };
    let bell = Bell::start(Arc::new(DoorbellMemory::create()?))?;
    let channel = || {
        let memory = Arc::new(Channel::rings(geometry, 1)?);
        Channel::new(Arc::clone(kernel), memory, &bell)
    };
    let ftrace = |event| -> Box<dyn Tracer> { Box::new(Ftrace { instance: instance.into(), event }) };
    let entry = |name: &str| {
        syscalls::find(Abi::Native, name).map(|call| call.recipe(Side::Entry)).ok_or("no such call")
    };
    let seven = ["procname", "prio", "nice", "ppid", "vtid", "uid", "pid_ns"];
    let seven: Vec<Field> =
        seven.iter().map(|name| contexts::find(name).map(|found| found.field)).collect::<Result<_, _>>()?;
    let ours = |recipe: &Recipe, contexts: &[Field]| -> Outcome<Box<dyn Tracer>> {
        let (recipe, contexts) = (recipe.clone(), contexts.to_vec());
        Ok(Box::new(Ours { channel: channel()?, recipe, contexts, filter: None }))
    };
    let getpid = entry("getpid")?;
    let other = entry("mkdir")?;
    let status = entry("statx")?;
    let switch = events::find("sched_switch").ok_or("no such event")?;
    show(
        "getpid",
        getpid_ns,
        vec![
            ("its entry", ours(&getpid, &[])?),
            ("with seven contexts", ours(&getpid, &seven)?),
            ("only another call's entry (the hook)", ours(&other, &[])?),
            ("ftrace syscalls:sys_enter_getpid", ftrace("syscalls/sys_enter_getpid")),
            ("ftrace raw_syscalls:sys_enter", ftrace("raw_syscalls/sys_enter")),
        ],
    )?;
    let filter = Filter::new(kernel, &status, "mask == 77")?;
    let (recipe, filter) = (status.clone(), Some(&filter));
    let rejecting: Box<dyn Tracer + '_> =
        Box::new(Ours { channel: channel()?, recipe, contexts: Vec::new(), filter });
    show(
        "a call with a path of 40 bytes",
        status_ns,
        vec![
            ("statx's entry with the path", ours(&status, &[])?),
            ("rejected by a filter", rejecting),
            ("ftrace raw_syscalls:sys_enter", ftrace("raw_syscalls/sys_enter")),
        ],
    )?;
    show(
        "a switch",
        switch_ns,
        vec![
            ("sched_switch", ours(switch, &[])?),
            ("with seven contexts", ours(switch, &seven)?),
            ("ftrace sched:sched_switch", ftrace("sched/sched_switch")),
        ],
    )?;
    enabling(kernel, &mut channel()?)
}

/// What it takes to begin.
fn enabling(kernel: &Kernel, channel: &mut Channel) -> Outcome<()> {
    let start = Instant::now();
    let tables: Vec<&Recipe> = events::all().filter(|recipe| kernel.recipe(&recipe.name).is_some()).collect();
    for (id, recipe) in tables.iter().enumerate().take(12) {
        channel.enable(recipe, id as u32, &[], &[])?;
    }
    println!("twelve events enabled in {:?}", start.elapsed());
    channel.stop()?;
    let start = Instant::now();
    for (id, recipe) in syscalls::recipes(Abi::Native).enumerate() {
        channel.enable(&recipe, id as u32, &[], &[])?;
    }
    println!("all system calls of 64-bit programs, both ends, enabled in {:?}", start.elapsed());
    channel.stop()?;
    let start = Instant::now();
    statedump::run(channel, &[], |_| Some(1))?;
    println!("state dump in {:?}", start.elapsed());
    Ok(())
}
