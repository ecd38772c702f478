//! Fields of map elements that user space reads at the same time: every access
//! is volatile, so the compiler keeps their order, and so do the stores of
//! x86-64.

/// Reads a field.
macro_rules! get {
    ($s:ident . $field:ident) => {
        // SAFETY: `$s` is an element of a map, checked by the verifier.
        unsafe { core::ptr::read_volatile(&raw const (*$s).$field) }
    };
}

/// Writes a field.
macro_rules! set {
    ($s:ident . $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as for `get!`.
        unsafe { core::ptr::write_volatile(&raw mut (*$s).$field, value) }
    }};
}

/// Adds to a field that has one writer at a time.
macro_rules! add {
    ($s:ident . $field:ident += $value:expr) => {
        $crate::cell::set!($s.$field = $crate::cell::get!($s.$field) + $value)
    };
}

/// Begins a change under an element's sequence lock.
macro_rules! begin {
    ($s:ident) => {{
        let seq = $crate::cell::get!($s.seq) + 1;
        $crate::cell::set!($s.seq = seq);
        seq
    }};
}

/// Ends it.
macro_rules! end {
    ($s:ident, $seq:ident) => {
        $crate::cell::set!($s.seq = $seq + 1)
    };
}

pub(crate) use {add, begin, end, get, set};

/// Adds to one of an array's counters that has one writer at a time.
#[inline(always)]
pub fn bump<const N: usize>(counters: *mut [u64; N], index: usize, by: u64) {
    if index < N {
        let counter = counters.cast::<u64>().wrapping_add(index);
        // SAFETY: in bounds by the line above.
        unsafe {
            core::ptr::write_volatile(counter, core::ptr::read_volatile(counter) + by);
        }
    }
}

/// Adds to a counter that has several writers. By hand: the target names no
/// atomic operation beyond load and store, although the machine has this one.
#[inline(always)]
pub fn atomic(counter: *mut u64, by: u64) {
    // SAFETY: an aligned word of a map element.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by);
    }
}
