//! Statements of the caller's own, on a connection that can do no more than they need.

use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Batch, Connection, Statement, ToSql, params_from_iter};

use super::schema;
use crate::entry::{Answer, Cell};
use crate::error::{Error, Result};

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Real(number) => ToSqlOutput::Owned(Value::Real(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

/// The caller's statement is wrong.
pub(super) fn refused(reason: impl Into<String>) -> Error {
    Error::InvalidSetting {
        name: "query",
        reason: reason.into(),
    }
}

/// Whether the one statement of a text only reads.
pub(super) fn only_reads(connection: &Connection, sql: &str) -> rusqlite::Result<Result<bool>> {
    let mut statements = Batch::new(connection, sql);
    let first = statements.next()?;
    let first = first.map(|statement| (statement.readonly(), statement.column_count()));
    if statements.next()?.is_some() {
        return Ok(Err(refused("give one statement at a time")));
    }
    Ok(match first {
        None => Err(refused("there is no statement in it")),
        // BEGIN, ATTACH, a switch: it would change the connection, which is nobody's for long.
        Some((true, 0)) => Err(refused("it neither reads rows nor writes any")),
        Some((only_reads, _)) => Ok(only_reads),
    })
}

/// Runs a statement to its end.
pub(super) fn run(
    connection: &Connection,
    sql: &str,
    parameters: &[Cell],
) -> rusqlite::Result<Answer> {
    let mut statement = connection.prepare(sql)?;
    if statement.column_count() == 0 {
        let changed = statement.execute(params_from_iter(parameters))?;
        return Ok(Answer::Changed(changed));
    }
    let names = names(&statement);
    let width = names.len();
    let rows = statement
        .query_map(params_from_iter(parameters), |row| {
            (0..width)
                .map(|index| row.get_ref(index).map(Cell::from))
                .collect()
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Answer::Rows(names, rows))
}

fn names(statement: &Statement<'_>) -> Vec<String> {
    let names = statement.column_names();
    names.into_iter().map(String::from).collect()
}

/// As [`run`], with the triggers that keep the index of tags and the checksums right, as for any
/// stranger who writes. `None`: the file has triggers that are not ours, and nothing was run.
pub(super) fn run_with_triggers(
    connection: &Connection,
    sql: &str,
    parameters: &[Cell],
) -> rusqlite::Result<Option<Answer>> {
    if !schema::has_only_our_triggers(connection)? {
        return Ok(None);
    }
    let switched = TriggersOn::switch(connection)?;
    let answer = run(connection, sql, parameters);
    drop(switched);
    answer.map(Some)
}

/// Triggers run on this connection until it is dropped.
struct TriggersOn<'a>(&'a Connection);

impl<'a> TriggersOn<'a> {
    fn switch(connection: &'a Connection) -> rusqlite::Result<Self> {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        Ok(Self(connection))
    }
}

impl Drop for TriggersOn<'_> {
    fn drop(&mut self) {
        let off = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
        drop(self.0.set_db_config(off, false));
    }
}
