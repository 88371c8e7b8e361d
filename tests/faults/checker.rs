//! Compares what each client ended with against what was published, and writes down what differs.

use std::time::Duration;

use crate::{
    clients::{Account, Client},
    table::Row,
    world::World,
};

/// How many examples of what is wrong are told.
const EXAMPLES_MAX: usize = 3;

/// Counts the clients' accounts into the row and checks the promises that hold in every scenario.
pub fn check_clients(row: &mut Row, clients: &[Client]) {
    let mut examples = Vec::new();
    let (mut longest, mut odd) = (Duration::ZERO, Vec::new());
    for (index, client) in clients.iter().enumerate() {
        let account = client.account.lock().expect("no panic under the lock");
        let wrong_before = row.states_wrong;
        check_states(row, client, &account, index, &mut examples);
        row.duplicates_delivered += account.duplicates;
        row.resumed += account.resumed;
        for (reason, count) in &account.resume_failures {
            *row.resume_failures.entry(reason.clone()).or_default() += count;
        }
        // Told that nothing is missing, and something is.
        let misled = account.is_resumed && row.states_wrong > wrong_before && account.wrong_resumed == 0;
        row.wrong_resumed += account.wrong_resumed + u32::from(misled);
        row.key_frames_missed += account.key_frames_missed;
        longest = longest.max(account.longest_gap);
        odd.extend(account.odd.iter().map(|odd| format!("client {index}: {odd}")));
    }
    row.clients = clients.len();
    row.longest_gap = Some(longest);
    let missed = row.endings_expected - row.endings_delivered;
    let (wrong, duplicates, untrue, keys) =
        (row.states_wrong, row.duplicates_delivered, row.wrong_resumed, row.key_frames_missed);
    row.promise(row.endings_expected > 0, || "nothing was there to be checked".to_owned());
    row.promise(missed == 0, || format!("{missed} endings did not reach a client"));
    row.promise(wrong == 0, || format!("{wrong} final states are wrong: {}", examples.join("; ")));
    row.promise(duplicates == 0, || format!("{duplicates} frames came twice or backwards"));
    row.promise(untrue == 0, || format!("{untrue} times `resumed: true` was not true"));
    row.promise(keys == 0, || format!("{keys} changes of status were left out"));
    odd.truncate(EXAMPLES_MAX);
    for odd in odd {
        row.promise(false, || odd);
    }
}

fn check_states(row: &mut Row, client: &Client, account: &Account, index: usize, examples: &mut Vec<String>) {
    let script = &client.plan.script;
    for task in client.visible() {
        let part = &script.parts[task];
        let (last, shown) = (part.last(), account.shown.get(&task));
        let is_last = shown.is_some_and(|shown| shown.number + 1 == part.lines.len() && shown.status == last.status);
        row.endings_expected += usize::from(last.is_end);
        row.endings_delivered += usize::from(last.is_end && is_last);
        let progress = (part.lines.len() > 1).then_some(last.progress);
        let is_right =
            is_last && shown.is_some_and(|shown| shown.attempt == last.attempt && shown.progress == progress);
        if is_right {
            row.states_right += 1;
        } else {
            row.states_wrong += 1;
            if examples.len() < EXAMPLES_MAX {
                examples.push(format!(
                    "client {index} shows {} as {shown:?} instead of {} {last:?}",
                    script.task_id(task),
                    part.lines.len() - 1
                ));
            }
        }
    }
}

/// What the replicas counted: nobody applied more than what was published, and nobody had to read the log anew.
pub async fn check_replicas(row: &mut Row, world: &World) {
    for place in 0..world.places.len() {
        let Some(all) = world.metric(place, "taskcast_events_total{").await else { continue };
        let applied_only = world.metric(place, "outcome=\"applied\"").await.unwrap_or_default();
        let canaries = world.metric(place, "outcome=\"canary\"").await.unwrap_or_default();
        let anew = world.metric(place, "taskcast_log_restarts_total").await.unwrap_or_default();
        let (published, refused) = (row.events as u64, all - applied_only - canaries);
        row.duplicates_applied += applied_only.saturating_sub(published);
        row.measure(&format!("replica {place} applied"), &format!("{applied_only} and refused {refused}"));
        row.promise(anew == 0, || format!("replica {place} read the log anew {anew} times"));
        row.promise(applied_only <= published, || {
            format!("replica {place} applied {applied_only} of {published} events")
        });
    }
}
