//! Interrupts and softirqs.

use crate::fields;
use crate::recipe::{Label, Recipe, U8, arg, at, labelled, s32, string, u8};

/// Softirqs in the order of their numbers.
const SOFTIRQS: &[Label] = &[
    ("HI", 0, 0),
    ("TIMER", 1, 1),
    ("NET_TX", 2, 2),
    ("NET_RX", 3, 3),
    ("BLOCK", 4, 4),
    ("IRQ_POLL", 5, 5),
    ("TASKLET", 6, 6),
    ("SCHED", 7, 7),
    ("HRTIMER", 8, 8),
    ("RCU", 9, 9),
];

/// A softirq's number, as number and by name.
const fn softirq(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![u8("vec", arg(0)), labelled("name", U8, SOFTIRQS, arg(0))])
}

pub(super) static EVENTS: &[Recipe] = &[
    Recipe::of("irq_handler_entry", fields![s32("irq", arg(0)), string("name", at(1, "name"))]),
    Recipe::of("irq_handler_exit", fields![s32("irq", arg(0)), s32("ret", arg(2))]),
    softirq("irq_softirq_entry", "softirq_entry"),
    softirq("irq_softirq_exit", "softirq_exit"),
    softirq("irq_softirq_raise", "softirq_raise"),
];
