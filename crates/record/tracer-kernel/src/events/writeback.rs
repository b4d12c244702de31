//! Writing dirty pages back, and the journal of file systems (jbd2).
//!
//! Most of it computes before it records, so it hangs on the kernel's own records, under LTTng's names.

use crate::recipe::{Field, Recipe, S8, U32, int, s32, s64, string, u32, u64};
use crate::{fields, named};

const NAME: Field = string("name", named!("name"));
const INO: Field = u64("ino", named!("ino"));
const STATE: Field = u64("state", named!("state"));
const INDEX: Field = u64("index", named!("index"));
const DEVICE: Field = u32("dev", named!("dev"));

const fn writeback(name: &'static str, event: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("writeback", event), fields)
}
const fn work(name: &'static str) -> Recipe {
    writeback(name, name, fields![NAME])
}
const fn inode(name: &'static str) -> Recipe {
    writeback(name, name, fields![NAME, INO, STATE, u64("flags", named!("flags"))])
}
const fn single(name: &'static str) -> Recipe {
    writeback(
        name,
        name,
        fields![
            NAME,
            INO,
            STATE,
            u64("dirtied_when", named!("dirtied_when")),
            u64("writeback_index", named!("writeback_index")),
            s64("nr_to_write", named!("nr_to_write")),
            u64("wrote", named!("wrote")),
        ],
    )
}
const fn write_inode(name: &'static str) -> Recipe {
    writeback(name, name, fields![NAME, INO, s32("sync_mode", named!("sync_mode"))])
}
const fn waited(name: &'static str) -> Recipe {
    writeback(
        name,
        name,
        fields![u32("usec_timeout", named!("usec_timeout")), u32("usec_delayed", named!("usec_delayed"))],
    )
}

const fn journal(name: &'static str, fields: &'static [Field]) -> Recipe {
    Recipe::from_record(name, ("jbd2", name), fields)
}
const SYNC: Field = int("sync_commit", S8, named!("sync_commit"));
const TRANSACTION: Field = u32("transaction", named!("transaction"));
const TID: Field = u32("tid", named!("tid"));
const fn commit(name: &'static str) -> Recipe {
    journal(name, fields![DEVICE, SYNC, TRANSACTION])
}

pub(super) static EVENTS: &[Recipe] = &[
    writeback(
        "writeback_balance_dirty_pages",
        "balance_dirty_pages",
        fields![
            string("bdi", named!("bdi")),
            u64("limit", named!("limit")),
            u64("setpoint", named!("setpoint")),
            u64("dirty", named!("dirty")),
            u64("bdi_setpoint", named!("wb_setpoint" | "bdi_setpoint")),
            u64("bdi_dirty", named!("wb_dirty" | "bdi_dirty")),
            u64("dirty_ratelimit", named!("dirty_ratelimit")),
            u64("task_ratelimit", named!("task_ratelimit")),
            u32("dirtied", named!("dirtied")),
            u32("dirtied_pause", named!("dirtied_pause")),
            u64("paused", named!("paused")),
            s64("pause", named!("pause")),
            u64("period", named!("period")),
            s64("think", named!("think")),
        ],
    ),
    writeback(
        "writeback_bdi_dirty_ratelimit",
        "bdi_dirty_ratelimit",
        fields![
            string("bdi", named!("bdi")),
            u64("write_bw", named!("write_bw")),
            u64("avg_write_bw", named!("avg_write_bw")),
            u64("dirty_rate", named!("dirty_rate")),
            u64("dirty_ratelimit", named!("dirty_ratelimit")),
            u64("task_ratelimit", named!("task_ratelimit")),
            u64("balanced_dirty_ratelimit", named!("balanced_dirty_ratelimit")),
        ],
    ),
    work("writeback_bdi_register"),
    work("writeback_bdi_unregister"),
    waited("writeback_congestion_wait"),
    writeback("writeback_dirty_folio", "writeback_dirty_folio", fields![NAME, INO, INDEX]),
    inode("writeback_dirty_inode"),
    inode("writeback_dirty_inode_start"),
    work("writeback_exec"),
    writeback("writeback_folio_wait", "folio_wait_writeback", fields![NAME, INO, INDEX]),
    writeback(
        "writeback_global_dirty_state",
        "global_dirty_state",
        fields![
            u64("nr_dirty", named!("nr_dirty")),
            u64("nr_writeback", named!("nr_writeback")),
            u64("nr_dirtied", named!("nr_dirtied")),
            u64("nr_written", named!("nr_written")),
            u64("background_thresh", named!("background_thresh")),
            u64("dirty_thresh", named!("dirty_thresh")),
            u64("dirty_limit", named!("dirty_limit")),
        ],
    ),
    inode("writeback_mark_inode_dirty"),
    work("writeback_nothread"),
    work("writeback_nowork"),
    writeback("writeback_pages_written", "writeback_pages_written", fields![s64("pages", named!("pages"))]),
    work("writeback_queue"),
    writeback(
        "writeback_queue_io",
        "writeback_queue_io",
        fields![NAME, u64("older", named!("older")), s32("moved", named!("moved"))],
    ),
    writeback(
        "writeback_sb_inodes_requeue",
        "writeback_sb_inodes_requeue",
        fields![NAME, INO, STATE, u64("dirtied_when", named!("dirtied_when"))],
    ),
    single("writeback_single_inode"),
    single("writeback_single_inode_start"),
    work("writeback_start"),
    work("writeback_thread_start"),
    work("writeback_thread_stop"),
    work("writeback_wait"),
    waited("writeback_wait_iff_congested"),
    work("writeback_wake_background"),
    work("writeback_wake_forker_thread"),
    work("writeback_wake_thread"),
    writeback(
        "writeback_wbc_writepage",
        "wbc_writepage",
        fields![
            NAME,
            s64("nr_to_write", named!("nr_to_write")),
            s64("pages_skipped", named!("pages_skipped")),
            s32("sync_mode", named!("sync_mode")),
            s32("for_kupdate", named!("for_kupdate")),
            s32("for_background", named!("for_background")),
            // Writing for reclaim is gone since 6.17.
            s32("for_reclaim", named!("for_reclaim" or 0)),
            s32("range_cyclic", named!("range_cyclic")),
            s64("range_start", named!("range_start")),
            s64("range_end", named!("range_end")),
        ],
    ),
    write_inode("writeback_write_inode"),
    write_inode("writeback_write_inode_start"),
    work("writeback_written"),
    journal("jbd2_checkpoint", fields![DEVICE, s32("result", named!("result"))]),
    journal(
        "jbd2_checkpoint_stats",
        fields![
            DEVICE,
            TID,
            u64("chp_time", named!("chp_time")),
            u32("forced_to_close", named!("forced_to_close")),
            u32("written", named!("written")),
            u32("dropped", named!("dropped")),
        ],
    ),
    commit("jbd2_commit_flushing"),
    commit("jbd2_commit_locking"),
    commit("jbd2_commit_logging"),
    commit("jbd2_drop_transaction"),
    journal("jbd2_end_commit", fields![DEVICE, SYNC, TRANSACTION, u32("head", named!("head"))]),
    journal(
        "jbd2_run_stats",
        fields![
            DEVICE,
            TID,
            u64("wait", named!("wait")),
            u64("running", named!("running")),
            u64("locked", named!("locked")),
            u64("flushing", named!("flushing")),
            u64("logging", named!("logging")),
            u32("handle_count", named!("handle_count")),
            u32("blocks", named!("blocks")),
            u32("blocks_logged", named!("blocks_logged")),
        ],
    ),
    commit("jbd2_start_commit"),
    journal("jbd2_submit_inode_data", fields![DEVICE, INO]),
    journal(
        "jbd2_update_log_tail",
        fields![
            DEVICE,
            u32("tail_sequence", named!("tail_sequence")),
            u32("first_tid", named!("first_tid")),
            u64("block_nr", named!("block_nr")),
            u64("freed", named!("freed")),
        ],
    ),
    journal(
        "jbd2_write_superblock",
        fields![DEVICE, int("write_flags", U32.hex(), named!("write_flags" | "write_op"))],
    ),
];
