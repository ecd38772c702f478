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
/// layouts, and whose `sched_switch` has `arguments` of them.
fn kernel(arguments: u32) -> Vec<u8> {
    let mut b = Builder::new();
    let (task, state, pid) = (
        b.string("task_struct"),
        b.string("__state"),
        b.string("pid"),
    );
    let switch = b.string("btf_trace_sched_switch");
    let int = b.string("int");
    b.words(&[int, 1 << 24, 4, 32]); // 1: int
    b.words(&[0, (4 << 24) | 1, 8, pid, 1, 32]); // 2: struct { …; int pid; }
    b.words(&[task, (4 << 24) | 2, 64, state, 1, 192, 0, 2, 256]); // 3: task_struct
    b.words(&[0, (13 << 24) | (arguments + 1), 0]); // 4: the prototype
    for _ in 0..=arguments {
        b.words(&[0, 1]);
    }
    b.words(&[0, 2 << 24, 4]); // 5: pointer to it
    b.words(&[switch, 8 << 24, 5]); // 6: its typedef
    b.bytes()
}

#[test]
fn members_of_anonymous_structs_are_found() {
    assert_eq!(find(&kernel(4)), Ok(Offsets { pid: 36, state: 24 }));
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
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("skip: {PATH} does not exist\n"),
        );
        return;
    }
    let offsets = offsets().unwrap();
    assert!(
        offsets.pid > 0 && offsets.pid.is_multiple_of(4),
        "{offsets:?}"
    );
    assert!(
        offsets.state > 0 && offsets.state.is_multiple_of(4),
        "{offsets:?}"
    );
}

#[test]
fn a_kernel_without_drop_reasons_is_named() {
    let problem = find_net(&kernel(4)).unwrap_err();
    assert!(problem.contains("kfree_skb"), "{problem}");
}

#[test]
fn net_offsets_of_this_kernel() {
    let bytes = match fs::read(PATH) {
        Ok(bytes) => bytes,
        Err(error) => {
            println!("skip: {PATH}: {error}");
            return;
        }
    };
    let offsets = find_net(&bytes).unwrap();
    // `dev` stands behind two list pointers in every kernel since 4.2.
    assert_eq!(offsets.skb_dev, 16);
    assert!(offsets.full_ring > 2 && offsets.dev_ifindex > 0 && offsets.net_inum > 0);
}
