//! Lists of the API server, read in several answers in the name of the user. In: a session and a path. Out: the
//! items of each answer.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::caller::Session;
use crate::api::problem::Problem;

/// What is listed, and how much of it is read.
pub struct List<'a> {
    /// With a query, for example `?limit=500`.
    pub path: &'a str,
    /// Answers that are read.
    pub most: usize,
    /// As kubectl names it, for messages.
    pub resource: &'a str,
}

impl List<'_> {
    /// Reads the list and calls `each` with the items of each answer.
    pub async fn read<T: DeserializeOwned>(
        &self,
        session: &Session,
        mut each: impl FnMut(Vec<T>),
    ) -> Result<(), Problem> {
        let mut next = self.path.to_string();
        for _ in 0..self.most {
            let (items, more) = self.parsed(session.api_server().get(&next).await?)?;
            each(items);
            let Some(more) = more else { break };
            next = format!("{}&continue={more}", self.path);
        }
        Ok(())
    }

    /// The items of an answer, and where the next one begins.
    fn parsed<T: DeserializeOwned>(&self, mut list: Value) -> Result<(Vec<T>, Option<String>), Problem> {
        let resource = self.resource;
        let unreadable = |why: &str| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ApiServerUnavailable",
                format!(
                    "the API server's list of {resource} cannot be read: {why}; try kubectl get {resource}"
                ),
            )
        };
        let Some(items) = list.get_mut("items") else {
            return Err(unreadable("it has no items"));
        };
        let items: Option<Vec<T>> =
            serde_json::from_value(items.take()).map_err(|error| unreadable(&error.to_string()))?;
        let more = list["metadata"]["continue"].as_str().unwrap_or_default();
        // Base64 of URLs, which a query may have as it is.
        if !more
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(unreadable("its field continue is not base64"));
        }
        let more = (!more.is_empty()).then(|| more.to_string());
        Ok((items.unwrap_or_default(), more))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Event;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_is_no_empty_list() {
        let list = List {
            path: "/api/v1/events?limit=1",
            most: 1,
            resource: "events",
        };
        let event = json!({"metadata": {}, "involvedObject": {}});
        let answer = json!({"metadata": {"continue": "a"}, "items": [event]});
        let (events, more) = list.parsed::<Event>(answer).unwrap();
        assert_eq!((events.len(), more.as_deref()), (1, Some("a")));
        assert_eq!(
            list.parsed::<Event>(json!({"items": null})).unwrap(),
            (Vec::new(), None)
        );
        for answer in [
            json!({}),
            json!("none"),
            json!({"items": "none"}),
            json!({"items": [{"metadata": {}, "involvedObject": {}, "count": "many"}]}),
            json!({"metadata": {"continue": "a&limit=1"}, "items": []}),
        ] {
            let problem = list.parsed::<Event>(answer).unwrap_err();
            assert_eq!((problem.status, problem.reason), (503, "ApiServerUnavailable"));
            assert!(
                problem.detail.contains("kubectl get events"),
                "{}",
                problem.detail
            );
        }
    }
}
