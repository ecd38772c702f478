//! Where this kernel keeps the fields of a request.

use headroom_abi::block::BlockOffsets;

use crate::probe::btf::Types;

/// Begins every request, since kernel 6.5.
const IO_START: &str = "block_io_start";

/// Looks the fields up.
///
/// # Errors
/// Names what the kernel lacks.
pub fn find(types: &Types<'_>) -> Result<BlockOffsets, String> {
    // Before 5.11 and 5.16 other arguments came first or instead.
    for (hook, arguments) in [("block_rq_issue", 1), ("block_rq_complete", 3)] {
        let found = types.tracepoint_arguments(hook);
        if found != Some(arguments) {
            return Err(format!(
                "{hook} has {found:?} arguments, {arguments} are needed (kernel 5.16)"
            ));
        }
    }
    let field = |of: &str, path: &str| types.offset(of, path);
    let mut offsets = BlockOffsets {
        rq_queue: field("request", "q")?,
        rq_flags: field("request", "cmd_flags")?,
        rq_bytes: field("request", "__data_len")?,
        rq_bio: field("request", "bio")?,
        rq_start: field("request", "start_time_ns")?,
        queue_disk: field("request_queue", "disk")?,
        disk_major: field("gendisk", "major")?,
        disk_minor: field("gendisk", "first_minor")?,
        has_io_start: u32::from(types.tracepoint_arguments(IO_START) == Some(1)),
        ..BlockOffsets::default()
    };
    // CONFIG_BLK_CGROUP may be off: then only the process tells.
    let cgroup = || {
        Ok::<_, String>(BlockOffsets {
            bio_blkg: field("bio", "bi_blkg")?,
            blkg_blkcg: field("blkcg_gq", "blkcg")?,
            blkcg_cgroup: field("blkcg", "css.cgroup")?,
            cgroup_node: field("cgroup", "kn")?,
            node_id: field("kernfs_node", "id")?,
            has_cgroups: 1,
            ..offsets
        })
    };
    offsets = cgroup().unwrap_or(offsets);
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_tells_all() {
        let Ok(bytes) = std::fs::read(crate::probe::btf::PATH) else {
            return;
        };
        let types = Types::parse(&bytes).unwrap();
        let offsets = find(&types).unwrap();
        assert_eq!(offsets.disk_minor, offsets.disk_major + 4);
        assert_eq!(offsets.has_cgroups, 1);
        let fields = [offsets.rq_flags, offsets.rq_bytes, offsets.rq_bio];
        assert!(fields.iter().all(|f| *f > 0 && *f < 1024), "{offsets:?}");
        assert!(offsets.has_io_start <= 1);
    }
}
