use super::*;

/// Builds BTF bytes: enough kinds for what the loader looks up.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
        }
    }

    fn string(&mut self, s: &str) -> u32 {
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(s.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types
            .extend(words.iter().flat_map(|w| w.to_le_bytes()));
    }

    fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len(), self.strings.len());
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for w in [24, 0, types, types, strings] {
            out.extend(u32::try_from(w).unwrap().to_le_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }
}

/// A kernel whose `pid` sits in an anonymous struct, as with randomised
/// layouts, whose `sched_switch` has `arguments` of them, and whose run queues
/// know no throttling.
fn kernel(arguments: u32) -> Vec<u8> {
    let mut b = Builder::new();
    let int = b.string("int");
    b.words(&[int, 1 << 24, 4, 32]); // 1: int
    let pid = b.string("pid");
    b.words(&[0, (4 << 24) | 1, 8, pid, 1, 32]); // 2: struct { …; int pid; }
    let members = |b: &mut Builder, name: &str, members: &[(&str, u32, u32)]| {
        let name = b.string(name);
        let mut words = vec![name, (4 << 24) | u32::try_from(members.len()).unwrap(), 512];
        for (member, type_id, bits) in members {
            let member = if member.is_empty() {
                0
            } else {
                b.string(member)
            };
            words.extend([member, *type_id, *bits]);
        }
        b.words(&words);
    };
    members(
        &mut b,
        "sched_info",
        &[("run_delay", 1, 64), ("last_queued", 1, 192)],
    ); // 3
    members(&mut b, "sched_entity", &[("cfs_rq", 1, 1024)]); // 4
    members(&mut b, "thread_info", &[("cpu", 1, 160)]); // 5
    let named = b.string("sched_info_t");
    b.words(&[named, 8 << 24, 3]); // 6: a typedef of 3
    members(
        &mut b,
        "task_struct",
        &[
            ("__state", 1, 192),
            ("", 2, 256),
            ("flags", 1, 320),
            ("tgid", 1, 352),
            ("thread_info", 5, 0),
            ("se", 4, 2048),
            ("sched_info", 6, 4096),
            ("sched_task_group", 1, 8192),
        ],
    ); // 7
    members(&mut b, "task_group", &[("cfs_rq", 1, 64)]); // 8
    members(&mut b, "cfs_rq", &[("rq", 1, 128)]); // 9
    members(&mut b, "rq", &[("clock", 1, 640), ("nr_running", 1, 32)]); // 10
    b.words(&[0, (13 << 24) | (arguments + 1), 0]); // 11: the prototype
    for _ in 0..=arguments {
        b.words(&[0, 1]);
    }
    b.words(&[0, 2 << 24, 11]); // 12: pointer to it
    let switch = b.string("btf_trace_sched_switch");
    b.words(&[switch, 8 << 24, 12]); // 13: its typedef
    b.bytes()
}

#[test]
fn members_of_members_are_found() {
    let found = find(&kernel(4)).unwrap();
    for (global, offset) in [
        ("PID_OFFSET", 36),
        ("STATE_OFFSET", 24),
        ("CPU_OFFSET", 20),
        ("CFS_RQ_OFFSET", 256 + 128),
        ("RUN_DELAY_OFFSET", 512 + 8),
        ("LAST_QUEUED_OFFSET", 512 + 24),
        ("THROTTLED_TIME_OFFSET", ABSENT),
    ] {
        assert_eq!(found.of(global), Some(offset), "{global}");
    }
    assert!(!found.throttling);
}

#[test]
fn a_kernel_without_prev_state_is_refused() {
    assert!(find(&kernel(3)).unwrap_err().contains("3 arguments"));
}

#[test]
fn cut_bytes_are_refused() {
    let whole = kernel(4);
    for len in 0..whole.len() - 1 {
        assert!(find(&whole[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn this_kernel_has_the_fields() {
    if !std::path::Path::new(PATH).exists() {
        headroom_tests::require::lacks("bpf", format_args!("{PATH} does not exist"));
        return;
    }
    let offsets = offsets().unwrap();
    for field in FIELDS {
        let offset = offsets.of(field.global).unwrap();
        let known = offset != ABSENT && offset.is_multiple_of(4);
        assert!(known || field.optional, "{}: {offset}", field.global);
    }
}

#[test]
fn a_kernel_without_drop_reasons_is_named() {
    let problem = find(&kernel(4)).unwrap().net.unwrap_err();
    assert!(problem.contains("kfree_skb"), "{problem}");
}

#[test]
fn net_offsets_of_this_kernel() {
    let bytes = match fs::read(PATH) {
        Ok(bytes) => bytes,
        Err(error) => {
            headroom_tests::require::lacks("bpf", format_args!("{PATH}: {error}"));
            return;
        }
    };
    let offsets = find(&bytes).unwrap().net.unwrap();
    // `dev` stands behind two list pointers in every kernel since 4.2.
    assert_eq!(offsets.skb_dev, 16);
    assert!(offsets.full_ring > 2 && offsets.dev_ifindex > 0 && offsets.net_inum > 0);
}
