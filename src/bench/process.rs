//! What other processes cost, from `/proc`, and this process's own limits.

use std::{fs, time::Duration};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::BenchError;

/// `USER_HZ`: what `/proc/PID/stat` counts in. It is 100 on every architecture this runs on; the
/// kernel scales precise run times to it.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time and resident memory of some processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time since each began.
    pub(crate) cpu: Duration,
    /// Resident KiB, all of them.
    pub(crate) rss_kib: u64,
}

/// What `pids` have used so far.
pub(crate) fn usage(pids: &[u32]) -> Result<Usage, BenchError> {
    let mut total = Usage::default();
    for pid in pids {
        total.cpu += cpu(&pid.to_string())?;
        total.rss_kib += rss_kib(*pid)?;
    }
    Ok(total)
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Result<Duration, BenchError> {
    cpu("self")
}

/// The CPU time of some processes; cheaper than [`usage`], which walks their memory maps.
pub(crate) fn cpu_of(pids: &[u32]) -> Result<Duration, BenchError> {
    pids.iter().map(|pid| cpu(&pid.to_string())).sum()
}

fn cpu(pid: &str) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| BenchError::process(&path, &e))?;
    let ticks = ticks(&stat).ok_or_else(|| BenchError::Process(format!("{path} is not understood")))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// utime + stime (fields 14 and 15). The second field is the program's name in parentheses and may
/// hold anything, so counting begins behind its last one.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident KiB of a process. `smaps_rollup` is exact; `status` lags behind by some pages per thread.
pub(crate) fn rss_kib(pid: u32) -> Result<u64, BenchError> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    if let Some(kib) = rollup.ok().and_then(|text| kib_field(&text, "Rss:")) {
        return Ok(kib);
    }
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|e| BenchError::process(&path, &e))?;
    kib_field(&status, "VmRSS:").ok_or_else(|| BenchError::Process(format!("{path} has no VmRSS")))
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Raises the soft limit of open files to the hard one, and answers it.
pub(crate) fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Refused or not: what counts is what there is now.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_cannot_shift_the_fields() {
        let stat = "42 (a b) c) R 1 42 42 0 -1 4194560 1 0 0 0 70 30 5 5 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("garbage"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let pid = std::process::id();
        assert!(usage(&[pid]).unwrap().rss_kib > 100);
        assert!(own_cpu().is_ok());
        assert!(usage(&[u32::MAX]).is_err());
        assert_eq!(kib_field("Rss:       12 kB\n", "Rss:"), Some(12));
    }
}
