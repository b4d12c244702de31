//! Reclaim of memory (vmscan).

use crate::recipe::{Field, Recipe, arg, hex64, s32, s64, u32, u64};
use crate::{fields, named};

const fn vmscan(name: &'static str, event: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("vmscan", event), fields)
}
const fn begin(name: &'static str) -> Recipe {
    Recipe::of(name, fields![s32("order", arg(0)), u32("gfp_flags", arg(1))])
}
const fn end(name: &'static str) -> Recipe {
    Recipe::of(name, fields![u64("nr_reclaimed", arg(0))])
}

pub(super) static EVENTS: &[Recipe] = &[
    begin("mm_vmscan_direct_reclaim_begin"),
    end("mm_vmscan_direct_reclaim_end"),
    Recipe::of("mm_vmscan_kswapd_sleep", fields![s32("nid", arg(0))]),
    Recipe::of(
        "mm_vmscan_kswapd_wake",
        fields![s32("nid", arg(0)), s32("zid", arg(1)), s32("order", arg(2))],
    ),
    vmscan(
        "mm_vmscan_lru_isolate",
        "mm_vmscan_lru_isolate",
        fields![
            s32("classzone_idx", named!("highest_zoneidx" | "classzone_idx")),
            s32("order", named!("order")),
            u64("nr_requested", named!("nr_requested")),
            u64("nr_scanned", named!("nr_scanned")),
            u64("nr_skipped", named!("nr_skipped")),
            u64("nr_taken", named!("nr_taken")),
            // The mode is gone since 6.10.
            u32("isolate_mode", named!("isolate_mode" or 0)),
            s32("lru", named!("lru")),
        ],
    ),
    vmscan(
        "mm_vmscan_lru_shrink_inactive",
        "mm_vmscan_lru_shrink_inactive",
        fields![
            s32("nid", named!("nid")),
            u64("nr_scanned", named!("nr_scanned")),
            u64("nr_reclaimed", named!("nr_reclaimed")),
            u64("nr_dirty", named!("nr_dirty")),
            u64("nr_writeback", named!("nr_writeback")),
            u64("nr_congested", named!("nr_congested")),
            u64("nr_immediate", named!("nr_immediate")),
            u64("nr_activate_anon", named!("nr_activate0")),
            u64("nr_activate_file", named!("nr_activate1")),
            u64("nr_ref_keep", named!("nr_ref_keep")),
            u64("nr_unmap_fail", named!("nr_unmap_fail")),
            s32("priority", named!("priority")),
            s32("reclaim_flags", named!("reclaim_flags")),
        ],
    ),
    begin("mm_vmscan_memcg_reclaim_begin"),
    end("mm_vmscan_memcg_reclaim_end"),
    begin("mm_vmscan_memcg_softlimit_reclaim_begin"),
    end("mm_vmscan_memcg_softlimit_reclaim_end"),
    vmscan(
        "mm_vmscan_shrink_slab_end",
        "mm_shrink_slab_end",
        fields![
            hex64("shr", named!("shr")),
            s32("nid", named!("nid")),
            hex64("shrink", named!("shrink")),
            s64("unused_scan", named!("unused_scan")),
            s64("new_scan", named!("new_scan")),
            s32("retval", named!("retval")),
            s64("total_scan", named!("total_scan")),
        ],
    ),
    vmscan(
        "mm_vmscan_shrink_slab_start",
        "mm_shrink_slab_start",
        fields![
            hex64("shr", named!("shr")),
            hex64("shrink", named!("shrink")),
            s32("nid", named!("nid")),
            s64("nr_objects_to_shrink", named!("nr_objects_to_shrink")),
            u32("gfp_flags", named!("gfp_flags")),
            u64("cache_items", named!("cache_items")),
            u64("delta", named!("delta")),
            u64("total_scan", named!("total_scan")),
            s32("priority", named!("priority")),
        ],
    ),
    Recipe::of(
        "mm_vmscan_wakeup_kswapd",
        fields![s32("nid", arg(0)), s32("zid", arg(1)), s32("order", arg(2)), u32("gfp_flags", arg(3))],
    ),
    vmscan(
        "mm_vmscan_write_folio",
        "mm_vmscan_write_folio",
        fields![hex64("pfn", named!("pfn")), s32("reclaim_flags", named!("reclaim_flags"))],
    ),
];
