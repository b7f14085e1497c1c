-- make a schema of our own
CREATE SCHEMA reprieve;

-- let everybody call what is in it
GRANT USAGE ON SCHEMA reprieve TO PUBLIC;

-- install the guard over 2 tables and 2 catalogs
CREATE OR REPLACE FUNCTION reprieve.guard(ceiling pg_catalog.int8, newest pg_catalog.oid, more pg_catalog.oid[]) RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE AS $guard$
-- tables: 16400 16410
-- Installed by `reprieve protect --apply`; `--remove` takes it away. Raises when this transaction did more than it may.
DECLARE
  flushed pg_catalog.text;
  part pg_catalog.int8;
  total pg_catalog.int8 := 0;
  beyond pg_catalog.bool := false;
  counted pg_catalog.text := '';
  one pg_catalog.oid;
BEGIN
  flushed := pg_catalog.pg_stat_force_next_flush()::pg_catalog.text;
  part := ((pg_catalog.pg_stat_get_xact_tuples_inserted(16400::pg_catalog.oid)
   OPERATOR(pg_catalog.+) (pg_catalog.pg_stat_get_xact_tuples_updated(16400::pg_catalog.oid)
   OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(16400::pg_catalog.oid)))
   OPERATOR(pg_catalog.+) (pg_catalog.pg_stat_get_xact_tuples_inserted(16410::pg_catalog.oid)
   OPERATOR(pg_catalog.+) (pg_catalog.pg_stat_get_xact_tuples_updated(16410::pg_catalog.oid)
   OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(16410::pg_catalog.oid))));
  IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
    total := total OPERATOR(pg_catalog.+) part;
    counted := pg_catalog.concat(counted,
      CASE WHEN pg_catalog.pg_stat_get_xact_tuples_inserted(16400::pg_catalog.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(16400::pg_catalog.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(16400::pg_catalog.oid) OPERATOR(pg_catalog.>) 0::pg_catalog.int8
       THEN pg_catalog.concat('16400:', pg_catalog.pg_stat_get_xact_tuples_inserted(16400::pg_catalog.oid), ',', pg_catalog.pg_stat_get_xact_tuples_updated(16400::pg_catalog.oid), ',', pg_catalog.pg_stat_get_xact_tuples_deleted(16400::pg_catalog.oid), ' ') END,
      CASE WHEN pg_catalog.pg_stat_get_xact_tuples_inserted(16410::pg_catalog.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(16410::pg_catalog.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(16410::pg_catalog.oid) OPERATOR(pg_catalog.>) 0::pg_catalog.int8
       THEN pg_catalog.concat('16410:', pg_catalog.pg_stat_get_xact_tuples_inserted(16410::pg_catalog.oid), ',', pg_catalog.pg_stat_get_xact_tuples_updated(16410::pg_catalog.oid), ',', pg_catalog.pg_stat_get_xact_tuples_deleted(16410::pg_catalog.oid), ' ') END);
  END IF;
  FOREACH one IN ARRAY more LOOP
    part := pg_catalog.pg_stat_get_xact_tuples_inserted(one) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(one) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(one);
    IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
      total := total OPERATOR(pg_catalog.+) part;
      counted := pg_catalog.concat(counted, one, ':', pg_catalog.pg_stat_get_xact_tuples_inserted(one), ',', pg_catalog.pg_stat_get_xact_tuples_updated(one), ',', pg_catalog.pg_stat_get_xact_tuples_deleted(one), ' ');
    END IF;
  END LOOP;
  part := ((pg_catalog.pg_stat_get_xact_tuples_inserted(1247::pg_catalog.oid)
   OPERATOR(pg_catalog.+) (pg_catalog.pg_stat_get_xact_tuples_updated(1247::pg_catalog.oid)
   OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(1247::pg_catalog.oid)))
   OPERATOR(pg_catalog.+) (pg_catalog.pg_stat_get_xact_tuples_inserted(1259::pg_catalog.oid)
   OPERATOR(pg_catalog.+) (pg_catalog.pg_stat_get_xact_tuples_updated(1259::pg_catalog.oid)
   OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(1259::pg_catalog.oid))));
  IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
    beyond := true;
    FOREACH one IN ARRAY '{1247,1259}'::pg_catalog.oid[] LOOP
      part := pg_catalog.pg_stat_get_xact_tuples_inserted(one) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(one) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(one);
      IF part OPERATOR(pg_catalog.>) 0::pg_catalog.int8 THEN
        counted := pg_catalog.concat(counted, one, ':', pg_catalog.pg_stat_get_xact_tuples_inserted(one), ',', pg_catalog.pg_stat_get_xact_tuples_updated(one), ',', pg_catalog.pg_stat_get_xact_tuples_deleted(one), ' ');
      END IF;
    END LOOP;
  END IF;
  IF (total OPERATOR(pg_catalog.<=) ceiling) IS NOT TRUE THEN
    beyond := true;
  END IF;
  IF newest IS NOT NULL THEN
    IF (SELECT pg_catalog.max(p.oid) FROM pg_catalog.pg_class p) OPERATOR(pg_catalog.<>) newest THEN
      beyond := true;
    END IF;
  END IF;
  PERFORM FROM pg_catalog.pg_cursor() h WHERE h.is_holdable;
  IF beyond OR FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '22P02', MESSAGE = pg_catalog.concat('reprieve:', counted);
  END IF;
  RETURN pg_catalog.concat(pg_catalog.pg_current_xact_id_if_assigned(), '|', counted);
END
$guard$;

-- let everybody be measured by it
GRANT EXECUTE ON FUNCTION reprieve.guard(pg_catalog.int8, pg_catalog.oid, pg_catalog.oid[]) TO PUBLIC;

