//! The file of `taskcast default-config`: every key with its default and what it means, commented out. A file that says
//! nothing gets later versions' defaults.

use std::fmt::Write as _;

use super::{
    keys::{KEYS, TABLES},
    value,
};

const HEAD: &str = "\
# taskcast's configuration: every key with its default, or with an example where nothing is the default.
# Take the `#` away from what you change. A variable of the environment wins over this file, a flag over both:
#   taskcast serve --config taskcast.toml --set tasks.max=50000
#   TASKCAST_CONFIG=taskcast.toml TASKCAST_TASKS_MAX=50000 taskcast serve
# Check it with `taskcast check-config`.
";

/// The whole file.
#[must_use]
pub fn default_config() -> String {
    let mut out = HEAD.to_owned();
    for (table, doc) in TABLES {
        if !table.is_empty() {
            let _ = write!(out, "\n\n# {doc}\n[{table}]\n");
        }
        for key in KEYS.iter().filter(|key| key.split().0 == table) {
            let (default, note) = match key.default {
                Some(default) => (default, ""),
                None => (key.example, " (not set)"),
            };
            let (_, name) = key.split();
            let value = value::to_toml(key.kind, default);
            // A space after `#` marks words, none marks a setting.
            let _ = write!(out, "\n# {}\n# {}{note}\n#{name} = {value}\n", key.doc, key.variable());
        }
    }
    out
}
