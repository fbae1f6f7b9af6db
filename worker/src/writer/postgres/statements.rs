//! The statements of a transaction, sent without waiting for the answers in between.

use futures::{
    FutureExt,
    future::{BoxFuture, maybe_done},
    poll,
};
use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use super::{groups::Group, rows::Rules, sql, table::Table};

/// Writes the rows of a group.
///
/// Statements are not prepared by name: that fails behind connection poolers, and named statements would pile
/// up with many sets of columns.
pub(super) async fn write(
    client: &Client,
    table: &Table,
    rules: &Rules,
    group: &Group<'_>,
) -> Result<(), Error> {
    let statement = if group.delete { sql::delete } else { sql::upsert };
    let sql = statement(table, &rules.key, &group.columns, rules.merges());
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = group
        .values
        .iter()
        .map(|values| (values as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
        .collect();
    parameters.push((&table.quoted, Type::TEXT));
    parameters.push((&table.fingerprint, Type::TEXT));
    client.execute_typed(&sql, &parameters).await.map(drop)
}

/// A request of a transaction.
pub(super) type Request<'a, E = Error> = BoxFuture<'a, Result<(), E>>;

/// Runs requests in a transaction that is rolled back, after all that a commit would check.
pub(super) async fn try_out<'a>(
    client: &'a Client,
    begin: &'a str,
    requests: impl IntoIterator<Item = Request<'a>>,
) -> Result<(), Error> {
    let mut all = vec![client.batch_execute(begin).boxed()];
    all.extend(requests);
    all.push(client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").boxed());
    all.push(client.batch_execute("ROLLBACK").boxed());
    together(all).await
}

/// Sends all requests immediately, in order, and waits for all answers. In a transaction, everything behind a
/// failed request fails too, including the commit. Returns the first error.
pub(super) async fn together<E>(requests: Vec<Request<'_, E>>) -> Result<(), E> {
    let mut answers: Vec<_> = requests
        .into_iter()
        .map(|request| Box::pin(maybe_done(request)))
        .collect();
    for answer in &mut answers {
        // A request is sent at its first poll.
        let _ = poll!(answer.as_mut());
    }
    let mut result = Ok(());
    for mut answer in answers {
        answer.as_mut().await;
        result = result.and(answer.as_mut().take_output().unwrap_or(Ok(())));
    }
    result
}
