//! Network of the VMs and of the host.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    VM_NETS "vm_nets", VmNetRow, sort ["vm_id", "device", "ts"],
    "One network device of a VM over one window, seen from the host: a row with queue NULL for the whole device, and for a tap one for each receive queue in use. All directions are the guest's: guest_rx is what the host sends into a tap.";
    ts: time Utc "end of the window";
    host: text None [key] "host the VM runs on";
    vm_id: text None [key] "stable id of the VM";
    vm_name: text None [last] "name of the VM as its platform gives it";
    device: text None [key] "name of the tap or macvtap on the host";
    queue: opt_int None [key] "receive queue of the guest (transmit queue of the tap), from 0; NULL in the row of the whole device";
    kind: text None [last] "tap or macvtap";
    matched: text None "what says that the device is the VM's: name (command line), mac (tap's MAC is the guest's with first octet fe), fdinfo, netns (only VM in its network namespace)";
    window_ns: int Nanoseconds [sum] "length of the window; shorter where the device appeared in it";
    queues: opt_int Count [last] "queues of the device towards the guest";
    guest_rx_packets: opt_int Count [sum] "packets the guest received: taken from the tap by its backend. In a queue's row: packets queued towards it (mq qdisc) less guest_rx_drops, unavailable without an mq qdisc";
    guest_rx_bytes: opt_int Bytes [sum] "bytes of guest_rx_packets; in a queue's row bytes queued towards it, drops included";
    guest_rx_drops: opt_int Count [sum] "packets for the guest dropped because its queue was full or its backend away (tap's tx_dropped). In a queue's row: ring-full drops, from the tracepoint skb:kfree_skb; unavailable without the probe, for a macvtap, and in another network namespace";
    guest_rx_qdisc_drops: opt_int Count [sum] "packets for the guest dropped by the tap's queueing discipline before the ring; unavailable without an mq qdisc for queues";
    guest_rx_errors: opt_int Count [sum] "errors towards the guest; unavailable for a queue";
    guest_tx_packets: opt_int Count [sum] "packets the guest sent; unavailable for a queue: the kernel keeps no such count for a tap";
    guest_tx_bytes: opt_int Bytes [sum] "bytes of guest_tx_packets; unavailable for a queue";
    guest_tx_drops: opt_int Count [sum] "packets from the guest that the tap dropped (its rx_dropped); unavailable for a queue";
    guest_tx_errors: opt_int Count [sum] "errors from the guest: malformed headers and frames; unavailable for a queue";
    reason: opt_text None [last] "why figures of the row are unavailable";
}

table! {
    HOST_NETS "host_nets", HostNetRow, sort ["host", "ts"],
    "Protocol and interrupt figures of one host over one window.";
    ts: time Utc "end of the window";
    host: text None "host name";
    window_ns: int Nanoseconds "length of the window";
    tcp_segments_out: opt_int Count "TCP segments sent by the agent's network namespace, retransmits not included (/proc/net/snmp OutSegs)";
    tcp_retransmits: opt_int Count "TCP segments sent again (/proc/net/snmp RetransSegs); traffic of guests is not in it";
    tcp_retransmit_ratio: opt_float Ratio "tcp_retransmits / tcp_segments_out; unavailable when nothing was sent";
    interrupts: opt_int Count "interrupts of all CPUs (/proc/stat intr)";
    softirqs_net_rx: opt_int Count "NET_RX soft interrupts (/proc/stat softirq)";
    softirqs_net_tx: opt_int Count "NET_TX soft interrupts (/proc/stat softirq)";
    tap_drops_lost: opt_int Count "drops of queues that no row tells because the probe's table was full";
}
