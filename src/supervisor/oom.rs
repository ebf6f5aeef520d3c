//! Whether the kernel killed the broker because the container ran out of memory.

/// Files that count such kills in this container: control groups v2, then v1.
const COUNTERS: &[&str] = &["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
const LIMITS: &[&str] = &["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Kills so far; `None` where it is not counted.
pub(super) fn kills() -> Option<u64> {
    COUNTERS.iter().find_map(|path| parse_kills(&std::fs::read_to_string(path).ok()?))
}

fn parse_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The container's memory limit in MiB, if it has one.
pub(super) fn limit_mib() -> Option<u64> {
    let bytes: u64 = LIMITS.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())?;
    // Version 1 says "no limit" with a number near 2^63.
    (bytes < 1 << 60).then_some(bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::parse_kills;

    #[test]
    fn both_versions_of_control_groups_count() {
        assert_eq!(parse_kills("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n"), Some(1));
        assert_eq!(parse_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(parse_kills("oom_kill_disable 0\n"), None);
    }
}
