//! Processes of this machine, which is the node of the clusters that tests make.

use anyhow::{Context, Result, ensure};

/// What tells a process apart.
struct Told {
    /// Where its resources are counted, which names its pod.
    group: String,
    /// Its command line.
    line: String,
}

/// The processes of which this is true.
fn those(is_one: impl Fn(&Told) -> bool) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("failed to read /proc")? {
        let folder = entry.context("failed to read /proc")?.path();
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let told = Told {
            group: read("cgroup"),
            line: read("cmdline"),
        };
        if is_one(&told) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The process of a pod with a word in its command line.
///
/// # Errors
/// When there is none here.
pub fn process_of(uid: &str, word: &str) -> Result<u32> {
    let pod = format!("pod{uid}");
    let all = those(|own| own.group.contains(&pod) && own.line.contains(word))?;
    let first = all.first().copied();
    first.with_context(|| {
        format!("no process of the pod {uid} runs on this machine, which has to be its node")
    })
}

/// The processes with all of these words in their command lines.
///
/// # Errors
/// When processes cannot be listed.
pub fn processes(words: &[&str]) -> Result<Vec<u32>> {
    those(|own| words.iter().all(|word| own.line.contains(word)))
}

/// Sends a signal, such as `-KILL`.
///
/// # Errors
/// When there is no such process.
pub fn signal(signal: &str, pid: u32) -> Result<()> {
    let done = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()?;
    ensure!(done.success(), "kill {signal} {pid} ended with {done}");
    Ok(())
}
