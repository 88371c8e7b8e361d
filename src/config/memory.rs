//! How much memory there is: what was configured, else a share of what the container may take.

use std::path::Path;

use super::layers::Layers;

/// Where a container reads its own limit: version 2 of control groups, then version 1.
const LIMIT_FILES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The share of the container's limit that the process may take, in percent. The kernel counts the buffers of sockets
/// towards the limit too, and what is connected already goes on growing a little.
const SHARE_PERCENT: u64 = 80;

/// Version 1 says "no limit" with a number near the largest.
const NO_LIMIT_FROM_BYTES: u64 = 1 << 60;

/// Of tasks, where nobody knows how much memory there is.
const TASKS_MAX_BYTES: u64 = 1 << 30;

/// `None`: there is no limit.
pub(super) fn max_bytes(layers: &Layers<'_>) -> Option<u64> {
    match layers.integer("memory.max_bytes") {
        Some(0) => None,
        Some(bytes) => Some(bytes),
        None => container_limit(layers).map(|bytes| bytes / 100 * SHARE_PERCENT),
    }
}

/// 0: there is no limit.
pub(super) fn tasks_max_bytes(layers: &Layers<'_>, memory_max_bytes: Option<u64>) -> u64 {
    let default = || memory_max_bytes.map_or(TASKS_MAX_BYTES, |bytes| bytes / 2);
    layers.integer("tasks.max_bytes").unwrap_or_else(default)
}

fn container_limit(layers: &Layers<'_>) -> Option<u64> {
    let texts = LIMIT_FILES.iter().filter_map(|path| (layers.sources.read)(Path::new(path)).ok());
    let numbers = texts.filter_map(|text| std::str::from_utf8(&text).ok()?.trim().parse::<u64>().ok());
    numbers.filter(|bytes| (1..NO_LIMIT_FROM_BYTES).contains(bytes)).min()
}
