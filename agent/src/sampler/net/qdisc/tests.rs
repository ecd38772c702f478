use super::*;

fn put(kind: u16, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + body.len()).unwrap();
    let mut out = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// A message body as the kernel builds it: tcmsg, kind, handle, statistics.
fn body(ifindex: u32, place: (u32, u32), kind: &[u8], packets: u32) -> Vec<u8> {
    let (handle, parent) = place;
    let mut basic = (u64::from(packets) * 100).to_ne_bytes().to_vec();
    basic.extend(words(&[packets, 0]));
    let queue = put(TCA_STATS_QUEUE, &words(&[0, 0, packets / 10, 0, 0]));
    // Nested, as newer kernels mark it.
    let stats = put(
        TCA_STATS2 | 0x8000,
        &[put(TCA_STATS_BASIC, &basic), queue].concat(),
    );
    [
        words(&[0, ifindex, handle, parent, 0]),
        put(TCA_KIND, kind),
        put(12, &[0]),
        stats,
    ]
    .concat()
}

#[test]
fn queues_below_mq_and_nowhere_else() {
    let all = [
        body(5, (0, TC_H_ROOT), b"mq\0", 30),
        body(5, (0, 4), b"pfifo_fast\0", 0),
        body(5, (0, 3), b"pfifo_fast\0", 30),
        body(6, (0x8001_0000, TC_H_ROOT), b"htb\0", 40),
        body(6, (0x8002_0000, 0x8001_0001), b"fq_codel\0", 40),
        body(7, (0x8003_0000, TC_H_ROOT), b"mq\0", 50),
        body(7, (0, 0x8003_0001), b"fq_codel\0", 50),
    ];
    let devices = sorted(all.iter().filter_map(|b| qdisc(b)).collect());
    assert_eq!(devices.len(), 3);
    let passed = Passed {
        bytes: 3000,
        packets: 30,
        drops: 3,
    };
    assert_eq!(devices[&5].root, Some(passed));
    assert_eq!(devices[&5].queues[&2], passed);
    assert_eq!(devices[&5].queues[&3], Passed::default());
    assert!(devices[&6].queues.is_empty());
    assert_eq!(devices[&7].queues[&0].packets, 50);
}

#[test]
fn torn_messages_end_quietly() {
    let whole = body(5, (0, TC_H_ROOT), b"mq\0", 30);
    for len in 0..whole.len() - 1 {
        let _ = qdisc(&whole[..len]);
        let _ = message(&whole[..len]);
    }
    assert!(message(&[4, 0, 0, 0, 0, 0, 0, 0]).is_none());
}

#[test]
fn this_kernel_answers() {
    match read() {
        // A sandbox may have no netlink.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            headroom_tests::require::lacks("rtnetlink", error);
        }
        answer => {
            answer.unwrap();
        }
    }
}
