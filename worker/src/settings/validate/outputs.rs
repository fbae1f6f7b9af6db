//! Checks where records go: the topics of writers and of dead letters must not be each other, and headers must
//! not be set twice. The resource's schema and the operator have the same rules.

use std::collections::HashSet;

use crds::{WorkerConfig, spec::OnExhausted};

use super::Check;

pub(super) fn check(config: &WorkerConfig, check: &mut Check) {
    let loops = |topic: &String| config.topics.contains(topic);
    let mut written = HashSet::new();
    for (index, writer) in config.writers.iter().enumerate() {
        if let Some(kafka) = &writer.kafka {
            let field = format!("writers[{index}].kafka.topic");
            if loops(&kafka.topic) {
                let message = format!(
                    "{:?} is also an input topic and would be consumed again; use another topic",
                    kafka.topic
                );
                check.fail(&field, message);
            }
            if !written.insert(&kafka.topic) {
                let message = format!(
                    "another writer writes to {:?} as well, so it would contain every record twice; remove one \
                     of them, or use another topic",
                    kafka.topic
                );
                check.fail(&field, message);
            }
        }
        if let Some(message) = writer.http.as_ref().and_then(|http| http.repeated_header()) {
            check.fail(format!("writers[{index}].http.headers"), message);
        }
    }
    match &config.error_handling.dead_letter {
        Some(dead_letter) if loops(&dead_letter.topic) => check.fail(
            "errorHandling.deadLetter.topic",
            format!(
                "{:?} is also an input topic and would be consumed again; use another topic",
                dead_letter.topic
            ),
        ),
        Some(dead_letter) if written.contains(&dead_letter.topic) => check.fail(
            "errorHandling.deadLetter.topic",
            format!(
                "{:?} is also the topic of a Kafka writer, which would mix dead letters with outputs; use \
                 another topic",
                dead_letter.topic
            ),
        ),
        None if config.error_handling.on_exhausted == Some(OnExhausted::DeadLetter) => {
            check.fail(
                "errorHandling.onExhausted",
                "DeadLetter needs deadLetter.topic; set it, or use Stop or Skip",
            );
        }
        _ => {}
    }
}
