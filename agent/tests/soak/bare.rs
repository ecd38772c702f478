//! The guest: a KVM VM of one page, for what it costs the host without the
//! cost of QEMU (10 ms and 4 MB instead of 300 ms and 50 MB).
//!
//! This test binary executes itself with QEMU's name and arguments; what comes
//! after `--` the test runner takes for names of further tests.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Environment variable with what a guest is to do: see [`Plan::text`].
pub const PLAN: &str = "HEADROOM_BARE_GUEST";

/// The test that is the guest.
pub const ENTRY: &str = "bare::guest";

/// What the vCPUs of a guest do.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// Run this many thousandths of the time and halt otherwise; for 0 wake up
    /// once a second and halt again.
    Busy(u64),
    /// Each two wake one another this many times a second.
    Pairs(u64),
}

impl Plan {
    /// As the environment variable.
    pub fn text(self, vcpus: usize) -> String {
        match self {
            Self::Busy(share) => format!("{vcpus} busy {share}"),
            Self::Pairs(rate) => format!("{vcpus} pairs {rate}"),
        }
    }

    fn parse(text: &str) -> Option<(usize, Self)> {
        let mut parts = text.split(' ');
        let vcpus = parts.next()?.parse().ok()?;
        let (kind, number) = (parts.next()?, parts.next()?.parse().ok()?);
        let plan = match kind {
            "busy" => Self::Busy(number),
            "pairs" => Self::Pairs(number),
            _ => return None,
        };
        Some((vcpus, plan))
    }
}

/// Lives until its input ends, as it does when the test process ends.
#[test]
fn guest() {
    let Ok(text) = std::env::var(PLAN) else {
        return;
    };
    let (vcpus, plan) = Plan::parse(&text).expect("plan");
    let (_vm, vcpus) = machine(vcpus);
    let mut vcpus = vcpus.into_iter().enumerate();
    while let Some((n, vcpu)) = vcpus.next() {
        match plan {
            Plan::Busy(share) => spawn(n, move || busy(vcpu, share)),
            Plan::Pairs(rate) => {
                let (_, other) = vcpus.next().expect("an even number of vCPUs");
                let (theirs, ping) = pipe().expect("pipe");
                let (pong, answers) = pipe().expect("pipe");
                spawn(n, move || play(vcpu, n, ping, pong, rate));
                spawn(n + 1, move || answer(other, n, theirs, answers));
            }
        }
    }
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

fn spawn(n: usize, body: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(format!("CPU {n}/KVM"));
    // Small, as thousands of threads may exist at once.
    thread.stack_size(64 << 10).spawn(body).expect("thread");
}

/// A VM whose vCPUs count down and halt, again and again, in real mode.
fn machine(vcpus: usize) -> (VmFd, Vec<VcpuFd>) {
    #[repr(align(4096))]
    struct Page([u8; 4096]);

    // mov cx, 256; dec cx; jnz -3; hlt; jmp 0
    let payload = [0xb9, 0x00, 0x01, 0x49, 0x75, 0xfd, 0xf4, 0xeb, 0xf7];
    let page = Box::leak(Box::new(Page([0xf4; 4096])));
    page.0[..payload.len()].copy_from_slice(&payload);
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).expect("VM");
    let region = kvm_userspace_memory_region {
        memory_size: 4096,
        userspace_addr: page.0.as_ptr().expose_provenance() as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the page is leaked, so it stays valid for as long as the VM, and
    // nothing but the guest touches it from here on.
    unsafe { vm.set_user_memory_region(region) }.expect("memory");
    let vcpu = |n| {
        let vcpu = vm.create_vcpu(n).expect("vCPU");
        let mut system = vcpu.get_sregs().expect("registers");
        (system.cs.base, system.cs.selector) = (0, 0);
        vcpu.set_sregs(&system).expect("registers");
        let mut registers = vcpu.get_regs().expect("registers");
        (registers.rip, registers.rflags) = (0, 2);
        vcpu.set_regs(&registers).expect("registers");
        vcpu
    };
    let vcpus = (0..vcpus as u64).map(vcpu).collect();
    (vm, vcpus)
}

/// Runs the guest until it halts.
fn run(vcpu: &mut VcpuFd) {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => return,
            Ok(VcpuExit::Intr) => {}
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
            other => panic!("exit of the guest: {other:?}"),
        }
    }
}

/// Some ms on, the rest of the time halted; other load on the machine makes
/// the share smaller, never larger.
fn busy(mut vcpu: VcpuFd, share: u64) {
    loop {
        let start = cpu_time();
        run(&mut vcpu);
        while share > 0 && cpu_time() - start < Duration::from_millis(1) {
            run(&mut vcpu);
        }
        let spent = cpu_time() - start;
        if share == 0 {
            thread::sleep(Duration::from_secs(1));
            continue;
        }
        let parts = u32::try_from(1000 - share).expect("thousandths");
        thread::sleep(spent * parts / u32::try_from(share).expect("thousandths"));
    }
}

/// Wakes the other vCPU `rate` times a second, in bursts of 20 ms.
fn play(mut vcpu: VcpuFd, n: usize, mut ping: PipeWriter, mut pong: PipeReader, rate: u64) {
    pin(n);
    run(&mut vcpu);
    let start = Instant::now();
    let (mut byte, mut played) = ([0], 0);
    loop {
        thread::sleep(Duration::from_millis(20));
        let due = u128::from(rate) * start.elapsed().as_micros() / 1_000_000;
        while played < due {
            ping.write_all(&byte).expect("ping");
            pong.read_exact(&mut byte).expect("pong");
            played += 1;
        }
    }
}

fn answer(mut vcpu: VcpuFd, n: usize, mut ping: PipeReader, mut pong: PipeWriter) {
    pin(n);
    run(&mut vcpu);
    let mut byte = [0];
    while ping.read(&mut byte).expect("ping") == 1 {
        pong.write_all(&byte).expect("pong");
    }
}

/// Both of a pair on one CPU: two switches a turn.
fn pin(n: usize) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(n / 2 % cpus);
    sched_setaffinity(None, &set).expect("affinity");
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("time")
}
