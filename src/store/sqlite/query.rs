//! Statements of the caller's own, which may do nothing that outlives them but change rows.

use std::cell::Cell as Flag;

use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
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

thread_local! {
    /// A statement of the caller's own is being prepared on this thread.
    static CALLERS: Flag<bool> = const { Flag::new(false) };
}

/// Pragmas that only tell.
const TELLING: [&str; 21] = [
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "journal_mode",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
];

/// Of these an argument says what they are to tell about; of the others it would be a new value.
const TELLING_ABOUT: [&str; 7] = [
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
];

/// What a connection allows to be prepared: everything of ours; of the caller's nothing that would
/// outlive it on the connection, which others use after it.
pub(super) fn authorize(context: AuthContext<'_>) -> Authorization {
    if !CALLERS.get() {
        return Authorization::Allow;
    }
    let allowed = match context.action {
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => {
            TELLING.contains(&pragma_name)
                && (pragma_value.is_none() || TELLING_ABOUT.contains(&pragma_name))
        }
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => false,
        _ => true,
    };
    if allowed {
        Authorization::Allow
    } else {
        Authorization::Deny
    }
}

/// Until it is dropped, statements that this thread prepares are the caller's.
struct OfTheCaller;

impl OfTheCaller {
    fn begin() -> Self {
        CALLERS.set(true);
        Self
    }
}

impl Drop for OfTheCaller {
    fn drop(&mut self) {
        CALLERS.set(false);
    }
}

/// What a failure of the caller's statement means.
pub(super) fn explain(error: Error) -> Error {
    match error {
        Error::StoreUnavailable { reason, .. } if reason == "not authorized" => {
            refused("it would change the connection or its transaction, which are not its own")
        }
        Error::StoreUnavailable { reason, .. } => refused(reason),
        error => error,
    }
}

/// Whether the one statement of a text only reads.
pub(super) fn only_reads(connection: &Connection, sql: &str) -> rusqlite::Result<Result<bool>> {
    let _callers = OfTheCaller::begin();
    let mut statements = Batch::new(connection, sql);
    let first = statements.next()?.map(|statement| statement.readonly());
    if statements.next()?.is_some() {
        return Ok(Err(refused("give one statement at a time")));
    }
    Ok(first.ok_or_else(|| refused("there is no statement in it")))
}

/// Runs a statement to its end.
pub(super) fn run(
    connection: &Connection,
    sql: &str,
    parameters: &[Cell],
) -> rusqlite::Result<Answer> {
    let callers = OfTheCaller::begin();
    let mut statement = connection.prepare(sql)?;
    drop(callers);
    if statement.column_count() == 0 {
        // A statement that changes no row leaves the count of the one before it as it was.
        let before = connection.total_changes();
        let changed = statement.execute(params_from_iter(parameters))?;
        let any = connection.total_changes() > before;
        return Ok(Answer::Changed(if any { changed } else { 0 }));
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
