//! Timers of all kinds.

use crate::code::{Code, GenerateError, helper};
use crate::fields;
use crate::recipe::{Expr, Field, Label, Recipe, U32, arg, at, hex64, labelled, s32, s64, u8, u32, u64};
use sillage_bpf::Width;

/// In LTTng's order, its repetitions included.
const MODES: &[Label] = &[
    ("HRTIMER_MODE_ABS", 0, 0),
    ("HRTIMER_MODE_REL", 1, 1),
    ("HRTIMER_MODE_PINNED", 2, 2),
    ("HRTIMER_MODE_SOFT", 4, 4),
    ("HRTIMER_MODE_HARD", 8, 8),
    ("HRTIMER_MODE_ABS_PINNED", 2, 2),
    ("HRTIMER_MODE_REL_PINNED", 3, 3),
    ("HRTIMER_MODE_ABS_SOFT", 4, 4),
    ("HRTIMER_MODE_REL_SOFT", 5, 5),
    ("HRTIMER_MODE_ABS_PINNED_SOFT", 6, 6),
    ("HRTIMER_MODE_REL_PINNED_SOFT", 7, 7),
    ("HRTIMER_MODE_ABS_HARD", 8, 8),
    ("HRTIMER_MODE_REL_HARD", 9, 9),
    ("HRTIMER_MODE_ABS_PINNED_HARD", 10, 10),
    ("HRTIMER_MODE_REL_PINNED_HARD", 11, 11),
];

const TIMER: Field = hex64("timer", arg(0));
const HRTIMER: Field = hex64("hrtimer", arg(0));
const FUNCTION: Field = hex64("function", at(0, "function"));
/// The kernel's ticks.
const JIFFIES: Expr = Expr::Helper(helper::JIFFIES);

pub(super) static EVENTS: &[Recipe] = &[
    Recipe::of("timer_cancel", fields![TIMER]),
    Recipe::of("timer_expire_entry", fields![TIMER, u64("now", JIFFIES), FUNCTION, u64("baseclk", arg(1))]),
    Recipe::of("timer_expire_exit", fields![TIMER]),
    Recipe::on("timer_hrtimer_cancel", "hrtimer_cancel", fields![HRTIMER]),
    Recipe::on(
        "timer_hrtimer_expire_entry",
        "hrtimer_expire_entry",
        fields![HRTIMER, s64("now", Expr::Custom(now)), FUNCTION],
    ),
    Recipe::on("timer_hrtimer_expire_exit", "hrtimer_expire_exit", fields![HRTIMER]),
    Recipe::on(
        "timer_hrtimer_init",
        "hrtimer_init",
        fields![HRTIMER, s32("clockid", arg(1)), labelled("mode", U32, MODES, arg(2))],
    ),
    Recipe::on(
        "timer_hrtimer_start",
        "hrtimer_start",
        fields![
            HRTIMER,
            FUNCTION,
            s64("expires", at(0, "node.expires")),
            s64("softexpires", at(0, "_softexpires")),
            labelled("mode", U32, MODES, arg(1)),
            u8("was_armed", crate::first![arg(2), Expr::Const(0)]),
        ],
    ),
    Recipe::of("timer_init", fields![TIMER]),
    Recipe::on(
        "timer_itimer_expire",
        "itimer_expire",
        fields![s32("which", arg(0)), s32("pid", at(1, "numbers[0].nr")), u64("now", arg(2))],
    ),
    Recipe::on(
        "timer_itimer_state",
        "itimer_state",
        fields![
            s32("which", arg(0)),
            u64("expires", arg(2)),
            s64("value_sec", at(1, "it_value.tv_sec")),
            s64("value_nsec", at(1, "it_value.tv_nsec")),
            s64("interval_sec", at(1, "it_interval.tv_sec")),
            s64("interval_nsec", at(1, "it_interval.tv_nsec")),
        ],
    ),
    Recipe::of(
        "timer_start",
        fields![
            TIMER,
            FUNCTION,
            u64("expires", at(0, "expires")),
            u64("now", JIFFIES),
            u32("flags", at(0, "flags"))
        ],
    ),
];

/// The time that the second argument points to.
fn now(code: &mut Code<'_>) -> Result<(), GenerateError> {
    code.value(&arg(1))?;
    code.read_kernel(Width::B8)
}
