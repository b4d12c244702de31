//! Signals, work queues, modules, messages of the kernel, RCU, fences, and what devices on buses say.

use crate::recipe::{
    Expr, Field, Label, Recipe, S16, Source, Type, U8, U32, U64, arg, at, hex64, int, labelled, s32, string,
    text, u8, u16, u32, u64,
};
use crate::{fields, named};
use std::borrow::Cow;

const fn signal(name: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("signal", name), fields)
}
const SIG: Field = s32("sig", named!("sig"));
const ERRNO: Field = s32("errno", named!("errno"));
const CODE: Field = s32("code", named!("code"));

const MODULE: Field = string("name", at(0, "name"));
const fn module_count(name: &'static str) -> Recipe {
    Recipe::of(name, fields![hex64("ip", arg(1)), s32("refcnt", at(0, "refcnt.counter")), MODULE])
}
/// In the order of the kernel's bits.
const TAINTS: &[Label] = &[
    ("PROPRIETARY_MODULE", 1, 1),
    ("FORCED_MODULE", 2, 2),
    ("CPU_OUT_OF_SPEC", 4, 4),
    ("FORCED_RMMOD", 8, 8),
    ("MACHINE_CHECK", 16, 16),
    ("BAD_PAGE", 32, 32),
    ("USER", 64, 64),
    ("DIE", 128, 128),
    ("OVERRIDDEN_ACPI_TABLE", 256, 256),
    ("WARN", 512, 512),
    ("CRAP", 1024, 1024),
    ("FIRMWARE_WORKAROUND", 2048, 2048),
    ("OOT_MODULE", 4096, 4096),
    ("UNSIGNED_MODULE", 8192, 8192),
    ("SOFTLOCKUP", 16384, 16384),
    ("LIVEPATCH", 32768, 32768),
    ("AUX", 65536, 65536),
    ("RANDSTRUCT", 131072, 131072),
];

const fn fence(name: &'static str) -> Recipe {
    Recipe::from_record(
        name,
        ("dma_fence", name),
        fields![
            string("driver", named!("driver")),
            string("timeline", named!("timeline")),
            u32("context", named!("context")),
            u32("seqno", named!("seqno")),
        ],
    )
}

/// Bytes of a message of the kernel that are kept.
const MESSAGE_BYTES_MAX: u32 = 2048;
const MESSAGE: Field = Field {
    name: Cow::Borrowed("msg"),
    ty: Type::TextSequence { count: U64 },
    from: Source::Sequence { from: arg(0), count: arg(1), most: MESSAGE_BYTES_MAX },
};

const fn regulator(name: &'static str) -> Recipe {
    Recipe::of(name, fields![string("name", arg(0))])
}
const fn bus(name: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("i2c", name), fields)
}
const ADAPTER: Field = s32("adapter_nr", named!("adapter_nr"));
const MESSAGE_NUMBER: Field = u16("msg_nr", named!("msg_nr"));
const ADDRESS: Field = u16("addr", named!("addr"));
const FLAGS: Field = u16("flags", named!("flags"));
const LENGTH: Field = u16("len", named!("len"));

const fn sound(name: &'static str, event: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("asoc", event), fields)
}
const NAME: Field = string("name", named!("name"));
const VALUE: Field = s32("val", named!("val"));
const fn sound_value(name: &'static str, event: &'static str) -> Recipe {
    sound(name, event, fields![NAME, VALUE])
}

const fn rpc(name: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("sunrpc", name), fields)
}
const TASK: Field = u32("task_id", named!("task_id"));
const CLIENT: Field = s32("client_id", named!("client_id"));
const STATUS: Field = s32("status", named!("status"));
const fn rpc_status(name: &'static str) -> Recipe {
    rpc(name, fields![TASK, CLIENT, STATUS])
}
const fn rpc_running(name: &'static str) -> Recipe {
    rpc(
        name,
        fields![
            TASK,
            CLIENT,
            hex64("action", named!("action")),
            u64("runstate", named!("runstate")),
            STATUS,
            FLAGS
        ],
    )
}
const fn rpc_queued(name: &'static str) -> Recipe {
    rpc(
        name,
        fields![
            TASK,
            CLIENT,
            u64("timeout", named!("timeout")),
            u64("runstate", named!("runstate")),
            STATUS,
            FLAGS,
            string("q_name", named!("q_name")),
        ],
    )
}

pub(super) static EVENTS: &[Recipe] = &[
    sound_value("asoc_snd_soc_bias_level_done", "snd_soc_bias_level_done"),
    sound_value("asoc_snd_soc_bias_level_start", "snd_soc_bias_level_start"),
    sound("asoc_snd_soc_dapm_done", "snd_soc_dapm_done", fields![NAME]),
    sound("asoc_snd_soc_dapm_start", "snd_soc_dapm_start", fields![NAME]),
    sound(
        "asoc_snd_soc_dapm_walk_done",
        "snd_soc_dapm_walk_done",
        fields![
            NAME,
            s32("power_checks", named!("power_checks")),
            s32("path_checks", named!("path_checks")),
            s32("neighbour_checks", named!("neighbour_checks")),
        ],
    ),
    sound_value("asoc_snd_soc_dapm_widget_event_done", "snd_soc_dapm_widget_event_done"),
    sound_value("asoc_snd_soc_dapm_widget_event_start", "snd_soc_dapm_widget_event_start"),
    sound_value("asoc_snd_soc_dapm_widget_power", "snd_soc_dapm_widget_power"),
    sound("asoc_snd_soc_jack_irq", "snd_soc_jack_irq", fields![NAME]),
    sound_value("asoc_snd_soc_jack_notify", "snd_soc_jack_notify"),
    sound(
        "asoc_snd_soc_jack_report",
        "snd_soc_jack_report",
        fields![NAME, s32("mask", named!("mask")), VALUE],
    ),
    fence("dma_fence_destroy"),
    fence("dma_fence_emit"),
    fence("dma_fence_enable_signal"),
    fence("dma_fence_init"),
    fence("dma_fence_signaled"),
    fence("dma_fence_wait_end"),
    fence("dma_fence_wait_start"),
    Recipe::of("gpio_direction", fields![u32("gpio", arg(0)), s32("in", arg(1)), s32("err", arg(2))]),
    Recipe::of("gpio_value", fields![u32("gpio", arg(0)), s32("get", arg(1)), s32("value", arg(2))]),
    bus("i2c_read", fields![ADAPTER, MESSAGE_NUMBER, ADDRESS, FLAGS, LENGTH]),
    bus("i2c_result", fields![ADAPTER, u16("nr_msgs", named!("nr_msgs")), int("ret", S16, named!("ret"))]),
    Recipe::of("module_free", fields![MODULE]),
    module_count("module_get"),
    Recipe::of("module_load", fields![labelled("taints", U32, TAINTS, at(0, "taints")), MODULE]),
    module_count("module_put"),
    Recipe::of("module_request", fields![hex64("ip", arg(2)), u8("wait", arg(1)), string("name", arg(0))]),
    Recipe::on("printk_console", "console", fields![MESSAGE]),
    Recipe::of("rcu_utilization", fields![string("s", arg(0))]),
    regulator("regulator_disable"),
    regulator("regulator_disable_complete"),
    regulator("regulator_enable"),
    regulator("regulator_enable_complete"),
    regulator("regulator_enable_delay"),
    Recipe::of(
        "regulator_set_voltage",
        fields![string("name", arg(0)), s32("min", arg(1)), s32("max", arg(2))],
    ),
    Recipe::of("regulator_set_voltage_complete", fields![string("name", arg(0)), u32("val", arg(1))]),
    rpc_status("rpc_bind_status"),
    rpc_status("rpc_call_status"),
    rpc_status("rpc_connect_status"),
    rpc_running("rpc_task_begin"),
    rpc_running("rpc_task_complete"),
    rpc_running("rpc_task_run_action"),
    rpc_queued("rpc_task_sleep"),
    rpc_queued("rpc_task_wakeup"),
    Recipe::of("scsi_eh_wakeup", fields![u32("host_no", at(0, "host_no"))]),
    signal(
        "signal_deliver",
        fields![
            SIG,
            ERRNO,
            CODE,
            u64("sa_handler", named!("sa_handler")),
            u64("sa_flags", named!("sa_flags"))
        ],
    ),
    signal(
        "signal_generate",
        fields![
            SIG,
            ERRNO,
            CODE,
            text("comm", 16, named!("comm")),
            s32("pid", named!("pid")),
            s32("group", named!("group")),
            s32("result", named!("result")),
        ],
    ),
    Recipe::of("workqueue_activate_work", fields![hex64("work", arg(0))]),
    Recipe::of(
        "workqueue_execute_end",
        fields![hex64("work", arg(0)), hex64("function", crate::first![arg(1), Expr::Const(0)])],
    ),
    Recipe::of("workqueue_execute_start", fields![hex64("work", arg(0)), hex64("function", at(0, "func"))]),
    Recipe::of(
        "workqueue_queue_work",
        fields![hex64("work", arg(2)), hex64("function", at(2, "func")), s32("req_cpu", arg(0))],
    ),
    Recipe::from_record(
        "9p_client_req",
        ("9p", "9p_client_req"),
        fields![hex64("clnt", named!("clnt")), u8("type", named!("type")), u32("tag", named!("tag"))],
    ),
    Recipe::from_record(
        "9p_client_res",
        ("9p", "9p_client_res"),
        fields![
            hex64("clnt", named!("clnt")),
            u8("type", named!("type")),
            u32("tag", named!("tag")),
            u32("err", named!("err")),
        ],
    ),
    Recipe::from_record(
        "9p_protocol_dump",
        ("9p", "9p_protocol_dump"),
        fields![
            hex64("clnt", named!("clnt")),
            u8("type", named!("type")),
            u16("tag", named!("tag")),
            Field {
                name: Cow::Borrowed("line"),
                ty: Type::Array(U8, 32),
                from: Source::Kernel(named!("line")),
            },
        ],
    ),
];
