//! Each program twice: as BTF tracepoint, and with the same logic as a raw
//! tracepoint for kernels that refuse it. Only one of the two is ever loaded.

/// Declares both programs of a tracepoint. The body sees the context, the
/// tracepoint's arguments as the loader's kernel passes them, and `T`, the way
/// to read a structure.
macro_rules! hook {
    ($(#[$doc:meta])* $hook:literal, $name:ident, $raw:ident,
     |$ctx:ident, $t:ident| $body:expr) => {
        $(#[$doc])*
        #[aya_ebpf::macros::btf_tracepoint(function = $hook)]
        pub fn $name($ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            type $t = $crate::task::Direct;
            $body;
            0
        }

        #[doc = concat!("As [`", stringify!($name), "`], a raw tracepoint.")]
        #[aya_ebpf::macros::raw_tracepoint(tracepoint = $hook)]
        pub fn $raw($ctx: aya_ebpf::programs::RawTracePointContext) -> i32 {
            type $t = $crate::task::Probed;
            $body;
            0
        }
    };
}

pub(crate) use hook;
