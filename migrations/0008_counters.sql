-- Budgets of tokens that carry max_calls (delegation.md §5): one row for each
-- link that was debited at one of kavach's own endpoints.

-- lid is the link id, used how many calls it has paid for, budget how many it
-- may, until when the link ends, in ms.
CREATE TABLE counters (
  lid    TEXT   NOT NULL PRIMARY KEY,
  used   BIGINT NOT NULL,
  budget BIGINT NOT NULL,
  until  BIGINT NOT NULL
);
CREATE INDEX counters_until ON counters (until);
