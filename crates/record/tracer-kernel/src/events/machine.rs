//! The processor and its guests: interrupt vectors and exceptions of x86, KVM, power.

use crate::recipe::{
    Expr, Field, Recipe, Source, Type, U8, U32, arg, at, hex64, int, s32, string, u8, u32, u64,
};
use crate::{choose, fields};
use std::borrow::Cow;

const fn vector(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![s32("vector", arg(0))])
}
const fn fault(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(
        name,
        tracepoint,
        fields![hex64("address", arg(0)), hex64("ip", at(1, "ip")), int("error_code", U8.hex(), arg(2))],
    )
}
const fn clock(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![string("name", arg(0)), u64("state", arg(1)), u64("cpu_id", arg(2))])
}
const fn wakeup(name: &'static str, tracepoint: &'static str) -> Recipe {
    Recipe::on(name, tracepoint, fields![string("name", arg(0)), u64("state", arg(1))])
}
static HEX_BYTE: Type = Type::Int(U8.hex());
/// What the guest read or wrote; nothing if it is not known.
const MMIO_VALUE: Field = Field {
    name: Cow::Borrowed("val"),
    ty: Type::Sequence { count: U32, element: &HEX_BYTE },
    from: Source::Sequence { from: arg(3), count: choose!(arg(3), arg(1), Expr::Const(0)), most: 8 },
};

pub(super) static EVENTS: &[Recipe] = &[
    Recipe::of("kvm_ack_irq", fields![u32("irqchip", arg(0)), u32("pin", arg(1))]),
    Recipe::of("kvm_async_pf_completed", fields![hex64("address", arg(0)), u64("gva", arg(1))]),
    Recipe::of("kvm_async_pf_doublefault", fields![u64("gva", arg(0)), u64("gfn", arg(1))]),
    Recipe::of("kvm_async_pf_not_present", fields![u64("token", arg(0)), u64("gva", arg(1))]),
    Recipe::of("kvm_async_pf_ready", fields![u64("token", arg(0)), u64("gva", arg(1))]),
    Recipe::of("kvm_fpu", fields![u32("load", arg(0))]),
    Recipe::of("kvm_ioapic_set_irq", fields![u64("e", arg(0)), s32("pin", arg(1)), u8("coalesced", arg(2))]),
    Recipe::of("kvm_mmio", fields![u32("type", arg(0)), u32("len", arg(1)), u64("gpa", arg(2)), MMIO_VALUE]),
    Recipe::of("kvm_msi_set_irq", fields![hex64("address", arg(0)), u64("data", arg(1))]),
    Recipe::of(
        "kvm_set_irq",
        fields![u32("gsi", arg(0)), s32("level", arg(1)), s32("irq_source_id", arg(2))],
    ),
    Recipe::of("kvm_try_async_get_page", fields![u64("gva", arg(0)), u64("gfn", arg(1))]),
    Recipe::of("kvm_userspace_exit", fields![u32("reason", arg(0)), s32("errno", arg(1))]),
    clock("power_clock_disable", "clock_disable"),
    clock("power_clock_enable", "clock_enable"),
    clock("power_clock_set_rate", "clock_set_rate"),
    Recipe::on("power_cpu_frequency", "cpu_frequency", fields![u32("state", arg(0)), u32("cpu_id", arg(1))]),
    Recipe::on("power_cpu_idle", "cpu_idle", fields![u32("state", arg(0)), u32("cpu_id", arg(1))]),
    clock("power_domain_target", "power_domain_target"),
    Recipe::on("power_machine_suspend", "machine_suspend", fields![u32("state", arg(0))]),
    wakeup("power_wakeup_source_activate", "wakeup_source_activate"),
    wakeup("power_wakeup_source_deactivate", "wakeup_source_deactivate"),
    fault("x86_exceptions_page_fault_kernel", "page_fault_kernel"),
    fault("x86_exceptions_page_fault_user", "page_fault_user"),
    vector("x86_irq_vectors_call_function_entry", "call_function_entry"),
    vector("x86_irq_vectors_call_function_exit", "call_function_exit"),
    vector("x86_irq_vectors_call_function_single_entry", "call_function_single_entry"),
    vector("x86_irq_vectors_call_function_single_exit", "call_function_single_exit"),
    vector("x86_irq_vectors_deferred_error_apic_entry", "deferred_error_apic_entry"),
    vector("x86_irq_vectors_deferred_error_apic_exit", "deferred_error_apic_exit"),
    vector("x86_irq_vectors_error_apic_entry", "error_apic_entry"),
    vector("x86_irq_vectors_error_apic_exit", "error_apic_exit"),
    vector("x86_irq_vectors_ipi_entry", "x86_platform_ipi_entry"),
    vector("x86_irq_vectors_ipi_exit", "x86_platform_ipi_exit"),
    vector("x86_irq_vectors_irq_work_entry", "irq_work_entry"),
    vector("x86_irq_vectors_irq_work_exit", "irq_work_exit"),
    vector("x86_irq_vectors_local_timer_entry", "local_timer_entry"),
    vector("x86_irq_vectors_local_timer_exit", "local_timer_exit"),
    vector("x86_irq_vectors_reschedule_entry", "reschedule_entry"),
    vector("x86_irq_vectors_reschedule_exit", "reschedule_exit"),
    vector("x86_irq_vectors_spurious_apic_entry", "spurious_apic_entry"),
    vector("x86_irq_vectors_spurious_apic_exit", "spurious_apic_exit"),
    vector("x86_irq_vectors_thermal_apic_entry", "thermal_apic_entry"),
    vector("x86_irq_vectors_thermal_apic_exit", "thermal_apic_exit"),
    vector("x86_irq_vectors_threshold_apic_entry", "threshold_apic_entry"),
    vector("x86_irq_vectors_threshold_apic_exit", "threshold_apic_exit"),
];
