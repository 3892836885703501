//! What `/proc` says of processes: their time on a CPU, and the memory of them and of the kernel. Elsewhere than on
//! Linux it says nothing.

use std::collections::BTreeMap;
use std::fs;

/// Time on a CPU of some processes.
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    /// By thread, exact.
    threads: BTreeMap<(u32, u32), u64>,
    /// By process, threads that ended included, in hundredths of a second.
    processes: BTreeMap<u32, u64>,
}

impl Cpu {
    /// Up to now.
    pub fn of(processes: &[u32]) -> Self {
        let mut cpu = Self::default();
        for &process in processes {
            let Some(ticks) = ticks(process) else {
                continue;
            };
            cpu.processes.insert(process, ticks);
            let threads = fs::read_dir(format!("/proc/{process}/task"));
            for thread in threads.into_iter().flatten().flatten() {
                let name = thread.file_name();
                let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                if let Some(ns) = on_cpu(&format!("/proc/{process}/task/{id}")) {
                    cpu.threads.insert((process, id), ns);
                }
            }
        }
        cpu
    }

    /// Nanoseconds since `earlier`. `None`: the system does not tell, or a process is gone.
    pub fn since(&self, earlier: &Self) -> Option<u64> {
        if self.processes.len() < earlier.processes.len() || self.processes.is_empty() {
            return None;
        }
        let gone = |thread| !self.threads.contains_key(thread);
        if self.threads.is_empty() || earlier.threads.keys().any(gone) {
            let sum = |cpu: &Self| cpu.processes.values().sum::<u64>();
            return Some(sum(self).saturating_sub(sum(earlier)) * 10_000_000);
        }
        let before = |thread| earlier.threads.get(thread).copied().unwrap_or_default();
        let threads = self.threads.iter();
        Some(threads.map(|(id, ns)| ns.saturating_sub(before(id))).sum())
    }
}

/// Nanoseconds that the calling thread was on a CPU, and that it waited for one.
pub fn own_thread() -> Option<(u64, u64)> {
    schedstat("/proc/thread-self")
}

fn on_cpu(folder: &str) -> Option<u64> {
    schedstat(folder).map(|(ran, _)| ran)
}

fn schedstat(folder: &str) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("{folder}/schedstat")).ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// User and system time: fields 14 and 15 of proc_pid_stat(5).
fn ticks(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = text.rsplit(") ").next()?;
    let mut times = fields.split(' ').skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(user + system)
}

/// Memory, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// What processes take themselves, and their share of what they share (PSS).
    pub user: u64,
    /// What the kernel holds for sockets, of both ends and of all processes: buffers and, for root, objects.
    pub kernel: u64,
}

impl Memory {
    /// Of these processes now.
    pub fn of(processes: &[u32]) -> Option<Self> {
        let mut user = 0;
        for process in processes {
            user += field(&format!("/proc/{process}/smaps_rollup"), "Pss:")
                .or_else(|| field(&format!("/proc/{process}/status"), "VmRSS:"))?;
        }
        let pages = sockstat(&fs::read_to_string("/proc/net/sockstat").ok()?)?;
        // Only root may read it; then what is told is the buffers alone.
        let objects = fs::read_to_string("/proc/slabinfo").map_or(0, |text| objects(&text));
        Some(Self {
            user,
            kernel: pages * 4 + objects / 1024,
        })
    }

    /// The most that they had at any time.
    pub fn peak(processes: &[u32]) -> Option<u64> {
        let peaks = processes.iter();
        peaks
            .map(|process| field(&format!("/proc/{process}/status"), "VmHWM:"))
            .sum()
    }
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What the kernel makes for a socket and for what is on its way.
const OBJECTS: [&str; 7] = [
    "TCP",
    "TCPv6",
    "eventpoll_epi",
    "filp",
    "skbuff_head_cache",
    "skbuff_small_head",
    "sock_inode_cache",
];

/// Bytes of these objects: slabinfo(5), the number and the size of each.
fn objects(text: &str) -> u64 {
    let bytes = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let count: u64 = words.next()?.parse().ok()?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        OBJECTS.contains(&name).then_some(count * size)
    };
    text.lines().filter_map(bytes).sum()
}

/// The pages of TCP buffers.
fn sockstat(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_is_seen_and_idleness_is_none() {
        let own = [std::process::id()];
        let (before, thread) = (Cpu::of(&own), own_thread().unwrap().0);
        let mut sum = 0_u64;
        while own_thread().unwrap().0 - thread < 30_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        let used = Cpu::of(&own).since(&before).unwrap();
        assert!(used >= 20_000_000, "{used}");
        assert!(Cpu::default().since(&Cpu::default()).is_none());
        assert!(Memory::of(&own).unwrap().user > 1000);
        assert!(Memory::peak(&own).unwrap() > 1000);
        assert!(Cpu::of(&own).since(&Cpu::of(&[own[0], 1])).is_none());
    }

    #[test]
    fn pages_are_those_of_tcp() {
        let text =
            "sockets: used 35\nTCP: inuse 1 orphan 0 tw 91 alloc 1 mem 190\nUDP: inuse 0 mem 256\n";
        assert_eq!(sockstat(text), Some(190));
        assert_eq!(sockstat("UDP: inuse 0 mem 256"), None);
    }

    #[test]
    fn objects_are_those_of_sockets() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                    TCP 66 117 2368 13 8 : tunables 0 0 0\ntw_sock_TCP 368 368 256 16 1\n\
                    filp 10 20 192 21 1\n";
        assert_eq!(objects(text), 66 * 2368 + 1920);
    }
}
