//! What follows from a failed transaction: is it about a record, about the batch, or about the database.

use futures::FutureExt;
use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use super::{
    PostgresWriter,
    classify::{self, Verdict},
    columns_keep_changing,
    connect::Session,
    doubt::{COMPARED, Cause, Trial},
    groups::Group,
    sql, statements,
};
use crate::{
    record::failure::FailureClass,
    writer::{Rejected, WriteBatch, WriteError},
};
impl PostgresWriter {
    /// The result of a batch whose transaction has failed. `groups` are its rows.
    pub(super) async fn failed(
        &self,
        session: &Session,
        batch: &WriteBatch<'_>,
        groups: &[Group<'_>],
        error: Error,
    ) -> Result<Vec<Rejected>, WriteError> {
        let of_statement =
            |error: &Error| classify::of_statement(error, &session.table.quoted, &self.rules.key);
        if classify::code(&error) == Some(sql::COLUMNS_CHANGED) {
            return Err(columns_keep_changing(&self.table));
        }
        let cause = match classify::verdict(&error) {
            Verdict::Known(FailureClass::Record) => Cause::Record,
            Verdict::Known(_) => return Err(of_statement(&error)),
            Verdict::ParentMissing if is_one_record(batch) => {
                return Ok(retryable(batch.len(), &classify::of_rows(&error, groups)));
            }
            Verdict::ParentMissing => Cause::Record,
            Verdict::Doubtful => self
                .judge(session, batch, groups, &error)
                .await
                .map_err(|error| of_statement(&error))?,
        };
        match cause {
            Cause::Record => Err(self.refused(session, groups, &error).await),
            Cause::Database => Err(WriteError::Systemic(format!(
                "{}; every record that was tried fails in this way",
                classify::of_rows(&error, groups)
            ))),
            Cause::Transient => Err(WriteError::Transient(format!(
                "{}; the record passes when it is tried again",
                classify::of_rows(&error, groups)
            ))),
        }
    }

    /// Fails with the error that shows that no record is the cause.
    async fn judge(
        &self,
        session: &Session,
        batch: &WriteBatch<'_>,
        groups: &[Group<'_>],
        error: &Error,
    ) -> Result<Cause, Error> {
        let trial = Trial {
            client: &session.client,
            begin: &session.begin,
            table: &session.table,
            rules: &self.rules,
        };
        trial.without_rows(groups).await?;
        if !is_one_record(batch) {
            return Ok(Cause::Record);
        }
        let record = batch.batch().output(batch.selected()[0] as usize);
        let others = self.others(session, batch);
        let place = (batch.partition().clone(), record.offset());
        self.doubt.judge(place, error, &trial, groups, &others).await
    }

    /// Rows of other records of the batch.
    fn others<'a>(&self, session: &Session, batch: &WriteBatch<'a>) -> Vec<Vec<Group<'a>>> {
        let all = batch.batch();
        let own = all.source(batch.selected()[0]);
        let others = (0..all.len() as u32).filter(|output| all.source(*output) != own);
        let count = others.clone().count();
        others
            .step_by((count / COMPARED).max(1))
            .filter_map(|output| {
                let encoded = self.encode(&session.table, [all.output(output as usize)]).ok()?;
                (!encoded.groups.is_empty()).then_some(encoded.groups)
            })
            .collect()
    }

    /// The server does not say which column caused the error; for a single row, find out.
    async fn refused(&self, session: &Session, groups: &[Group<'_>], error: &Error) -> WriteError {
        let message = classify::of_rows(error, groups);
        if let [group] = groups
            && group.len() == 1
            && !classify::names_its_cause(error)
            && let Some(column) = misfit(session, group).await
        {
            return WriteError::Refused(format!("column {column:?}: {message}"));
        }
        WriteError::Refused(message)
    }
}

/// True if the batch cannot be halved.
fn is_one_record(batch: &WriteBatch<'_>) -> bool {
    let sources = |output: &u32| batch.batch().source(*output);
    let first = batch.selected().first().map(sources);
    batch
        .selected()
        .iter()
        .map(sources)
        .all(|source| Some(source) == first)
}

fn retryable(records: usize, message: &str) -> Vec<Rejected> {
    let rejected = |position| Rejected {
        position,
        message: message.to_string(),
        retryable: true,
        in_doubt: false,
    };
    (0..records).map(rejected).collect()
}

/// The first column that does not accept the text in the only row of the group.
async fn misfit(session: &Session, group: &Group<'_>) -> Option<String> {
    let (client, begin) = (&session.client, &session.begin);
    let assign = sql::assign(&session.table);
    // The domain of another column may refuse the NULL that it has there.
    let nothing = [(&"" as _, Type::TEXT), (&"" as _, Type::TEXT)];
    let assignable = query(client, &assign, &nothing).boxed();
    let assignable = statements::try_out(client, begin, [assignable]).await.is_ok();
    for (index, values) in group.columns.iter().zip(&group.values) {
        let column = &session.table.columns[*index];
        let text = values.first()?;
        let cast = sql::cast(column);
        let cast_parameter = [(text as _, Type::TEXT)];
        let parameters = [(text as _, Type::TEXT), (&column.name as _, Type::TEXT)];
        let mut requests = vec![query(client, &cast, &cast_parameter).boxed()];
        // A type that makes its own sense of JSON is only cast.
        if assignable && text.is_some() && !column.kind.is_json() {
            requests.push(query(client, &assign, &parameters).boxed());
        }
        if statements::try_out(client, begin, requests).await.is_err() {
            return (!client.is_closed()).then(|| column.name.clone());
        }
    }
    None
}

async fn query(client: &Client, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<(), Error> {
    client.query_typed(sql, parameters).await.map(drop)
}
