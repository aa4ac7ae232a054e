//! A pass of the archive, as the model's ClickHouse does it: it may break off anywhere.

use ingest::{archive::Pass, trouble::Trouble};

use crate::{
    model::ClickHouse,
    servers::{Bug, Servers},
};

impl Servers {
    /// One pass, as the server does it: some of it, the rest, then the note.
    pub(crate) async fn archive(&self, pass: Pass) -> Result<(), Trouble> {
        let id = (pass.writer_epoch, pass.number);
        let (number, crashes, bug) = {
            let mut shared = self.shared.lock().unwrap();
            if pass.writer_epoch < shared.clickhouse.fence {
                return Err(Trouble::Lost);
            }
            shared.inserts += 1;
            let number = shared.inserts;
            shared.clickhouse.running.insert(number, pass.writer_epoch);
            (number, shared.clickhouse.crashes, shared.bug)
        };
        let parts = 1 + self.shared.lock().unwrap().chance.below(3);
        for part in 0..=parts {
            self.delay(40).await;
            let mut shared = self.shared.lock().unwrap();
            let ends = shared.clickhouse.killed.remove(&number) && shared.chance.below(2) == 0;
            if shared.clickhouse.crashes != crashes || ends {
                shared.clickhouse.running.remove(&number);
                return Err(Trouble::ClickHouse("crashed or killed".into()));
            }
            let ClickHouse { archive, passes, .. } = &mut shared.clickhouse;
            archive.entry(id).or_default();
            if part == if bug == Some(Bug::EarlyNote) { 0 } else { parts } {
                passes.push(pass);
            }
            if part < parts {
                let rows = shared.clickhouse.of_pass(pass).into_iter();
                let some = rows.filter(|(_, _, sequence)| sequence % parts == part).collect::<Vec<_>>();
                shared.clickhouse.archive.entry(id).or_default().extend(some);
            }
        }
        self.shared.lock().unwrap().clickhouse.running.remove(&number);
        Ok(())
    }
}
