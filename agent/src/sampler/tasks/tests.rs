use super::*;
use crate::discover::fake::{self, FakeProc};
use crate::discover::{Role, ThreadKey, Vm, VmThread};
use crate::sampler::SceneVm;

const KERNEL: u64 = 0x0020_8040;
const FRAME: Frame<'static> = Frame { ts: 1, host: "h" };

/// A process or kernel thread that ran so long.
fn task(proc: &FakeProc, pid: u32, comm: &str, start: u64, ran: (u64, u64)) {
    let (ticks, flags) = ran;
    proc.write(
        &format!("{pid}/stat"),
        &format!("{pid} ({comm}) S 1 1 1 0 -1 {flags} 0 0 0 0 {ticks} 0 0 0 20 0 2 0 {start} 0 0"),
    );
}

fn vm(pid: u32, vhost: u32) -> Vm {
    let thread = |pid, tid| VmThread {
        key: ThreadKey {
            tid,
            start_ticks: 1,
        },
        pid,
        role: Role::Emulator,
    };
    fake::vm(pid, vec![thread(pid, pid), thread(vhost, vhost)])
}

fn told(chunk: &Chunk) -> Vec<(String, i64)> {
    let (
        headroom_core::batch::ColumnData::Text(owners),
        headroom_core::batch::ColumnData::Int(ran),
    ) = (&chunk.columns[3], &chunk.columns[5])
    else {
        panic!("{chunk:?}");
    };
    let both = owners.iter().zip(ran);
    both.map(|(o, r)| (o.clone().unwrap(), r.unwrap()))
        .collect()
}

#[test]
fn time_of_a_window_by_owner_without_the_vms() {
    let proc = FakeProc::new();
    task(&proc, 10, "ceph-osd", 5, (100, 0));
    task(&proc, 11, "ceph-osd", 5, (10, 0));
    task(&proc, 12, "kswapd0", 5, (0, KERNEL));
    proc.write("12/schedstat", "500 9 3\n");
    task(&proc, 20, "qemu-system-x86", 5, (1000, 0));
    task(&proc, 21, "vhost-20", 5, (0, KERNEL));
    let mut tasks = Tasks::new(proc.path().into());
    task(&proc, 10, "ceph-osd", 5, (130, 0));
    proc.write("12/schedstat", "777 9 3\n");
    task(&proc, 20, "qemu-system-x86", 5, (2000, 0));
    task(&proc, 21, "vhost-20", 5, (50, KERNEL));
    // Began in the window; and one that has another's pid.
    task(&proc, 30, "tar", u64::MAX / 2, (7, 0));
    task(&proc, 11, "cc1", u64::MAX / 2, (4, 0));
    let vm = vm(20, 21);
    let scene = Scene {
        vms: vec![SceneVm {
            vm: &vm,
            index: None,
            live: true,
        }],
    };
    let chunk = &tasks.window(&FRAME, &scene)[0];
    let expected = [
        ("ceph-osd", 300_000_000),
        ("tar", 70_000_000),
        ("cc1", 40_000_000),
        ("kswapd", 277),
    ];
    let expected: Vec<_> = expected.map(|(o, ns)| (o.to_owned(), ns)).into();
    assert_eq!(told(chunk), expected);
    // Its VM is gone but the process is still there: it counts from now on.
    assert!(
        told(&tasks.window(&FRAME, &Scene::default())[0]).contains(&("qemu-system-x86".into(), 0))
    );
}

#[test]
fn twenty_owners_and_a_rest_of_each_kind() {
    let sum = |run_ns| Sum {
        run_ns,
        processes: 1,
        threads: 2,
    };
    let mut sums: BTreeMap<Owner, Sum> = (0..30)
        .map(|n| ((owner::USER, format!("p{n:02}")), sum(100 + n)))
        .collect();
    sums.insert((owner::KERNEL, "ksmd".into()), sum(1));
    let rows = rows(&FRAME, 9, sums.clone());
    assert_eq!(rows.len(), TOP + 2);
    assert_eq!((rows[0].owner.as_str(), rows[0].run_ns), ("p29", 129));
    let total: i64 = rows.iter().map(|r| r.run_ns).sum();
    assert_eq!(total, int(sums.values().map(|s| s.run_ns).sum()));
    let rest: Vec<_> = rows[TOP..]
        .iter()
        .map(|r| (r.owner_kind.as_str(), r.owner.as_str(), r.processes))
        .collect();
    assert_eq!(rest, [("kernel", "(rest)", 1), ("user", "(rest)", 10)]);
}

#[test]
fn this_process_is_seen_running() {
    let mut tasks = Tasks::new("/proc".into());
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let cpu = || {
        let text = std::fs::read("/proc/self/stat").unwrap();
        stat::parse(&text).unwrap().cpu_ns
    };
    // 300 ms on the CPU, however long that takes.
    let began = cpu();
    while cpu() < began + 300_000_000 {
        std::hint::black_box((0..1000).sum::<u64>());
    }
    let chunk = &tasks.window(&FRAME, &Scene::default())[0];
    let ours = told(chunk).into_iter().find(|(o, _)| o == comm.trim());
    let ran = ours.expect("this process is among the first 20").1;
    assert!(ran >= 290_000_000, "{ran}");
    let status = &tasks.status()[0];
    println!("{}", status.source.as_deref().unwrap());
    assert!(status.reason.is_none());
}
