//! What a recorded system call costs: getpid in a loop, alone, with our event, and with ftrace's.
//! To be run pinned (`taskset -c 1`) and as root. Medians of the added nanoseconds.

use sillage_consumer::DoorbellMemory;
use sillage_ring::{Geometry, HeaderForm, Kind};
use sillage_tracer_kernel::recipe::{Recipe, arg, at, current, hex64, s32, s64, text, user_string};
use sillage_tracer_kernel::{Bell, Channel, Field, Kernel, fields, sys};
use std::error::Error;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

const CALLS: u32 = 20_000;
const ROUNDS: usize = 41;

/// A record of 64 bytes, header included.
static WIDE: Recipe = Recipe::on(
    "sys_enter",
    "sys_enter",
    fields![
        s64("id", arg(1)),
        hex64("a0", at(0, "di")),
        hex64("a1", at(0, "si")),
        hex64("a2", at(0, "dx")),
        hex64("a3", at(0, "r10")),
        hex64("a4", at(0, "r8")),
        hex64("a5", at(0, "r9")),
        s32("tid", current("pid")),
    ],
);
static NARROW: Recipe = Recipe::on("sys_enter", "sys_enter", fields![s64("id", arg(1))]);
/// The string is the program's own name in the kernel, for what staging costs.
static STRING: Recipe = Recipe::on(
    "sys_enter",
    "sys_enter",
    fields![s64("id", arg(1)), sillage_tracer_kernel::recipe::string("comm", current("comm"))],
);
const CONTEXTS: &[Field] = fields![
    text("procname", 16, current("comm")),
    s32("prio", current("prio").plus(-100)),
    s32("ppid", current("real_parent->tgid")),
    s32("tid", current("pid")),
    s32("uid", current("cred->uid")),
    s32("nice", current("static_prio").plus(-120)),
    s32("pid", current("tgid")),
];
/// Of an address that can't be read: what an empty user string costs.
static USER: Recipe = Recipe::on("sys_enter", "sys_enter", fields![user_string("s", at(0, "di"))]);

fn nothing(code: &mut sillage_tracer_kernel::Code<'_>) -> Result<(), sillage_tracer_kernel::GenerateError> {
    code.begin_variable();
    code.end_variable();
    Ok(())
}
fn read_only(code: &mut sillage_tracer_kernel::Code<'_>) -> Result<(), sillage_tracer_kernel::GenerateError> {
    code.value(&current("comm[0]"))?;
    code.value(&arg(0))?;
    code.read_kernel(sillage_bpf::Width::B8)?;
    code.begin_variable();
    code.end_variable();
    Ok(())
}
use sillage_tracer_kernel::recipe::{Type, U8, custom};
static STAGED: Recipe = Recipe::on(
    "sys_enter",
    "sys_enter",
    fields![custom("x", Type::TextSequence { count: U8 }, nothing), s64("id", arg(1))],
);
static READ: Recipe = Recipe::on(
    "sys_enter",
    "sys_enter",
    fields![custom("x", Type::TextSequence { count: U8 }, read_only), s64("id", arg(1))],
);

/// Nanoseconds of one call.
fn call_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::process::id());
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Median of what `on` adds, measured round about with nothing.
fn added(
    mut on: impl FnMut() -> Result<(), Box<dyn Error>>,
    mut off: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut differences = Vec::new();
    for _ in 0..ROUNDS {
        let without = call_ns();
        on()?;
        call_ns();
        let with = call_ns();
        off()?;
        differences.push(with - without);
    }
    Ok(median(differences))
}

fn main() -> Result<(), Box<dyn Error>> {
    let kernel = Arc::new(Kernel::running()?);
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
    println!("getpid alone: {:.1} ns", median((0..ROUNDS).map(|_| call_ns()).collect()));
    let cases: [(&str, &Recipe, &[Field]); 7] = [
        ("staged, nothing", &STAGED, &[]),
        ("and read", &READ, &[]),
        ("8 bytes of payload", &NARROW, &[]),
        ("60 bytes of payload", &WIDE, &[]),
        ("60 bytes and 7 contexts", &WIDE, CONTEXTS),
        ("a kernel string, staged", &STRING, &[]),
        ("an unreadable user string, staged", &USER, &[]),
    ];
    for (title, recipe, contexts) in cases {
        let memory = Arc::new(Channel::rings(geometry, 1)?);
        let channel = std::cell::RefCell::new(Channel::new(Arc::clone(&kernel), memory, &bell)?);
        let on = || Ok(channel.borrow_mut().enable(recipe, 1, contexts, &[])?);
        let off = || {
            channel.borrow_mut().disable(1);
            Ok(())
        };
        println!("{title}: +{:.1} ns, {} lost", added(on, off)?, channel.borrow().loss().total());
    }
    {
        use sillage_tracer_kernel::syscalls::{Abi, Side, all, find};
        let memory = Arc::new(Channel::rings(geometry, 1)?);
        let mut channel = Channel::new(Arc::clone(&kernel), memory, &bell)?;
        let mut times = Vec::new();
        for (id, call) in all(Abi::Native).iter().enumerate() {
            let start = Instant::now();
            let recipe = call.recipe(Side::Entry);
            let made = start.elapsed();
            let program = channel.load(&recipe, id as u32, &[], &[])?;
            times.push((start.elapsed(), sys::verified_insns(program.as_fd())?, made, call.name));
            drop(program);
        }
        times.sort();
        println!("{:?}", &times[..3]);
        println!("{:?}", &times[times.len() / 2..][..3]);
        println!("{:?}", &times[times.len() - 12..]);
        let recipe = find(Abi::Native, "getpid").unwrap().recipe(Side::Entry);
        let start = Instant::now();
        channel.enable(&recipe, 1, &[], &[])?;
        println!("enable {:?}", start.elapsed());
        let start = Instant::now();
        channel.disable(1);
        println!("disable {:?}", start.elapsed());
        let channel = std::cell::RefCell::new(channel);
        let on = || Ok(channel.borrow_mut().enable(&recipe, 1, &[], &[])?);
        let off = || {
            channel.borrow_mut().disable(1);
            Ok(())
        };
        println!("getpid's own entry event: +{:.1} ns", added(on, off)?);
        let other = find(Abi::Native, "mkdir").unwrap().recipe(Side::Entry);
        let on = || Ok(channel.borrow_mut().enable(&other, 1, &[], &[])?);
        println!("another call's entry event: +{:.1} ns", added(on, off)?);
    }
    if let Some(tracefs) = kernel.tracefs() {
        let instance = tracefs.join("instances").join(format!("sillage-cost-{}", std::process::id()));
        std::fs::create_dir(&instance)?;
        let enable = instance.join("events/raw_syscalls/sys_enter/enable");
        let result = added(|| Ok(std::fs::write(&enable, "1")?), || Ok(std::fs::write(&enable, "0")?));
        std::fs::remove_dir(&instance)?;
        println!("ftrace raw_syscalls:sys_enter: +{:.1} ns", result?);
    }
    Ok(())
}
