//! Runs the instructions of AMX on Linux machines that lack them: each one raises SIGILL, is decoded from its bytes and
//! done on emulated tiles of the thread. For tests of the real leaves; it knows the instructions that they use, no more.

use std::cell::RefCell;
use std::sync::Once;

use super::emulated::Emulated;
use super::tiles::Shape;

thread_local! {
    static TILES: RefCell<Emulated> = const { RefCell::new(Emulated::new()) };
}

/// From now on, the process can run them. Any other illegal instruction ends it, as before.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the action is plain data, and the handler below keeps to what a synchronous signal allows: it is
        // raised by an instruction of ours, so that nothing else of the thread is in the middle of anything.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}

extern "C" fn on_illegal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives the context of the thread, whose instruction pointer is at the instruction.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        match Instruction::decode(at, registers) {
            Some(instruction) => {
                TILES.with_borrow_mut(|tiles| instruction.run(tiles));
                registers[libc::REG_RIP as usize] += instruction.length as i64;
            }
            // Run again, it ends the process.
            None => {
                libc::signal(libc::SIGILL, libc::SIG_DFL);
            }
        }
    }
}

/// One instruction in the VEX encoding of the Intel SDM, volume 2: `C4`, two bytes of prefix, opcode, ModRM and what follows it.
struct Instruction {
    opcode: u8,
    /// The implied prefix: none, 66, F3 or F2 as 0 to 3.
    prefix: u8,
    /// The three operands: ModRM.reg, ModRM.rm, VEX.vvvv.
    reg: usize,
    rm: usize,
    vvvv: usize,
    /// Base address and scaled index, when the operand is memory.
    memory: Option<(i64, i64)>,
    length: usize,
}

impl Instruction {
    /// # Safety
    /// `at` is the address of an instruction of the process.
    unsafe fn decode(at: *const u8, registers: &[i64; 23]) -> Option<Instruction> {
        // SAFETY: bytes of code; beyond a VEX prefix at least these follow.
        let byte = |i: usize| unsafe { at.add(i).read() };
        // Map 0F38, W = 0, L = 0.
        if byte(0) != 0xc4
            || byte(1) & 0x1f != 2
            || byte(2) & 0x84 != 0
            || !matches!(byte(3), 0x49 | 0x4b | 0x5c | 0x5e)
        {
            return None;
        }
        let (x, b) = (usize::from(!byte(1) >> 6 & 1), usize::from(!byte(1) >> 5 & 1));
        let modrm = usize::from(byte(4));
        let mut instruction = Instruction {
            opcode: byte(3),
            prefix: byte(2) & 3,
            reg: modrm >> 3 & 7,
            rm: modrm & 7,
            vvvv: usize::from(!byte(2) >> 3 & 15),
            memory: None,
            length: 5,
        };
        let mode = modrm >> 6;
        if mode == 3 {
            return Some(instruction);
        }
        let (mut base, mut index) = (instruction.rm | b << 3, 0);
        if instruction.rm == 4 {
            let sib = usize::from(byte(5));
            instruction.length += 1;
            base = sib & 7 | b << 3;
            index = match sib >> 3 & 7 | x << 3 {
                4 => 0,
                register => registers[GENERAL[register] as usize] << (sib >> 6),
            };
        }
        // Relative to the instruction pointer, or no base at all: not what our leaves are compiled to.
        if mode == 0 && base & 7 == 5 {
            return None;
        }
        let displaced = instruction.length;
        let displacement = match mode {
            0 => 0,
            1 => i64::from(byte(displaced) as i8),
            _ => i64::from(i32::from_le_bytes(std::array::from_fn(|i| byte(displaced + i)))),
        };
        instruction.length += [0, 1, 4][mode];
        instruction.memory = Some((registers[GENERAL[base] as usize] + displacement, index));
        Some(instruction)
    }

    /// # Safety
    /// The memory that the instruction names is there for it.
    unsafe fn run(&self, tiles: &mut Emulated) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.opcode, self.prefix, self.memory) {
                // ldtilecfg
                (0x49, 0, Some((address, _))) => {
                    let config = (address as *const [u8; 64]).read_unaligned();
                    let bytes: [u8; 8] = std::array::from_fn(|tile| config[16 + 2 * tile]);
                    let rows: [u8; 8] = std::array::from_fn(|tile| config[48 + tile]);
                    let used = |at| at == 0 || (16..32).contains(&at) && at % 2 == 0 || (48..56).contains(&at);
                    assert_eq!(config[0], 1, "the palette of eight tiles");
                    assert!((0..64).all(|at| used(at) || config[at] == 0), "what is not used is zero: {config:?}");
                    tiles.set_shapes(std::array::from_fn(|tile| Shape { rows: rows[tile], bytes: bytes[tile] }));
                }
                // tilerelease
                (0x49, 0, None) => tiles.release(),
                // tilezero
                (0x49, 3, None) => tiles.clear(self.reg),
                // tileloadd, tilestored
                (0x4b, 3, Some((from, stride))) => tiles.read(self.reg, from as *const u8, stride as usize),
                (0x4b, 2, Some((to, stride))) => tiles.write(self.reg, to as *mut u8, stride as usize),
                // tdpbf16ps, tdpbsud
                (0x5c, 2, None) => tiles.multiply_bf16(self.reg, self.rm, self.vvvv),
                (0x5e, 2, None) => tiles.multiply_int8(self.reg, self.rm, self.vvvv),
                (opcode, prefix, _) => {
                    panic!("an instruction of AMX that nobody here uses: {opcode:x}, prefix {prefix}")
                }
            }
        }
    }
}

/// Where the context keeps the general registers, in the order of their numbers.
const GENERAL: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];
