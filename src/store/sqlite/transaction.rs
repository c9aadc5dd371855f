//! A write transaction that rolls back unless it is committed.

use rusqlite::Connection;

/// An open write transaction.
pub(super) struct Transaction<'a> {
    connection: &'a Connection,
    open: bool,
}

/// Begins a write transaction with the write lock already taken: one that began as a reader
/// would be refused later, without waiting, if somebody else committed meanwhile.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    Ok(Transaction {
        connection,
        open: true,
    })
}

impl Transaction<'_> {
    /// Makes everything since `begin` durable against the death of the process.
    pub(super) fn commit(mut self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // An error may have rolled back already; then there is nothing left to undo.
        if self.open && !self.connection.is_autocommit() {
            drop(self.connection.execute_batch("ROLLBACK"));
        }
    }
}
