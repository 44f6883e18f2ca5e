//! What is asked of the operating system: processors for threads, permission for tiles. Without effect where it has no
//! such thing.

/// Ties the calling thread to processor `index` of those that this process may use, counted around.
#[cfg(target_os = "linux")]
pub fn pin_thread(index: usize) {
    // SAFETY: the sets are plain data of the size that is passed; pid 0 is the calling thread.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return;
        }
        let processors: Vec<usize> = (0..8 * size).filter(|n| libc::CPU_ISSET(*n, &allowed)).collect();
        if processors.is_empty() {
            return;
        }
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processors[index % processors.len()], &mut one);
        libc::sched_setaffinity(0, size, &raw const one);
    }
}

#[cfg(not(target_os = "linux"))]
pub fn pin_thread(_: usize) {}

/// Lets the calling thread run only where others leave room: for loads beside the steps of those who are being served.
/// On Linux a nice value belongs to a thread.
#[cfg(target_os = "linux")]
pub fn lower_thread_priority() {
    const NICE: i32 = 5;
    // SAFETY: no memory is involved; 0 is the calling thread. That it may fail changes nothing but speed.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

#[cfg(not(target_os = "linux"))]
pub fn lower_thread_priority() {}

/// Whether the machine has tiles for bf16 and int8 and the kernel lets this process use them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn amx_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    const LEAF: u32 = 7;
    // CPUID.7.0:EDX: bit 22 AMX-BF16, 24 AMX-TILE, 25 AMX-INT8 (Intel SDM, volume 2A).
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    if std::arch::x86_64::__cpuid_count(LEAF, 0).edx & BITS != BITS {
        return false;
    }
    // SAFETY: asks for a permission of this process; no memory is involved.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
pub fn amx_permitted() -> bool {
    false
}
