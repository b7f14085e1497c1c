
-- Installed by `reprieve protect --apply`; `--remove` takes it away.
-- Moves tables into schemas that nobody else may use, and leaves an empty double of each for the DROP that follows: answers
-- the doubles' numbers. Views on them go along where a materialized one is among them, which would have to be filled again otherwise.
-- Where that can't be done without anybody noticing it changes nothing and answers why.
DECLARE
  -- The tables with their partitions, and the tables alone.
  trees oid[];
  roots oid[];
  -- Views that go along, in the order in which they are built on each other.
  views oid[];
  all_views oid[];
  movable oid[];
  one record;
  problem text;
  schema_name text;
  double text;
  doubles oid[] := '{}';
  uniques text[];
  later text[] := '{}';
  view_texts text[] := '{}';
  view_doubles text[] := '{}';
  double_texts text[] := '{}';
  step text;
  -- Catalogues and numbers of what is a part of these tables.
  part_classes oid[];
  part_objects oid[];
BEGIN
  SELECT array_agg(DISTINCT t.oid) INTO trees
   FROM (SELECT unnest(relations) AS oid UNION SELECT p.relid FROM unnest(relations) r, LATERAL pg_partition_tree(r) p) t;
  SELECT array_agg(r) INTO roots FROM unnest(relations) r
   WHERE NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = r AND i.inhparent = ANY (trees));

  SELECT CASE
    WHEN c.oid IS NULL THEN 'there is no such table'
    WHEN NOT pg_has_role(session_user, c.relowner, 'USAGE') THEN 'only who may drop a table may have it set aside'
    WHEN c.relkind NOT IN ('r', 'p') OR c.relpersistence <> 'p' AND c.relpersistence <> 'u' THEN 'it is no ordinary table'
    WHEN c.oid < 16384 OR n.nspname LIKE 'pg\_%' OR n.nspname = 'information_schema' OR n.nspname LIKE 'reprieve%' THEN 'it is not a user''s table'
    WHEN EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent WHERE (i.inhrelid = c.oid OR i.inhparent = c.oid)
     AND (p.relkind <> 'p' OR i.inhparent <> ALL (trees))) THEN 'it inherits, or is a part of a table that stays'
    WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'x')) THEN 'it belongs to an extension'
    WHEN EXISTS (SELECT FROM pg_publication_rel p WHERE p.prrelid = c.oid) THEN 'it is published'
   END INTO problem
   FROM unnest(trees) t LEFT JOIN pg_class c ON c.oid = t LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
   ORDER BY 1 NULLS LAST LIMIT 1;
  IF problem IS NOT NULL OR roots IS NULL THEN
    RAISE EXCEPTION '%', COALESCE(problem, 'there is nothing');
  END IF;
  FOR one IN SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (roots) LOOP
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', one.name);
  END LOOP;

  WITH RECURSIVE above(oid, height) AS (
     SELECT t, 0 FROM unnest(trees) t
     UNION SELECT v.oid, a.height + 1 FROM above a JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.oid AND d.deptype = 'n'
      JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
      WHERE v.oid <> a.oid AND a.height < 100),
    v AS (SELECT a.oid, max(a.height) AS height FROM above a WHERE a.height > 0 GROUP BY a.oid)
   SELECT array_agg(v.oid ORDER BY v.height, v.oid) INTO views FROM v
   HAVING bool_or((SELECT c.relkind = 'm' FROM pg_class c WHERE c.oid = v.oid)) AND max(v.height) < 100;
  -- A view that is built on something that stays would be in the way of whoever changes that: it and all on it stay, too.
  all_views := COALESCE(views, '{}');
  LOOP
    movable := ARRAY(SELECT v.oid FROM unnest(views) WITH ORDINALITY v(oid, place) WHERE NOT EXISTS (SELECT FROM pg_rewrite r
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
      LEFT JOIN pg_constraint k ON d.refclassid = 'pg_constraint'::regclass AND k.oid = d.refobjid
     WHERE r.ev_class = v.oid AND d.deptype = 'n' AND d.refobjid >= 16384
      AND (CASE d.refclassid WHEN 'pg_class'::regclass THEN d.refobjid ELSE k.conrelid END = ANY (trees || views)) IS NOT TRUE
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')) ORDER BY v.place);
    EXIT WHEN views IS NULL OR movable = views;
    views := movable;
  END LOOP;
  -- One that is filled and stays has to find the others where they are.
  IF EXISTS (SELECT FROM pg_class c WHERE c.oid = ANY (all_views) AND c.oid <> ALL (views) AND c.relkind = 'm') THEN
    views := NULL;
  END IF;
  views := COALESCE(views, '{}');

  -- What is a part of these relations, what is built on them, and what they are built on.
  WITH RECURSIVE p(classid, objid) AS (
     SELECT 'pg_class'::regclass::oid, t FROM unnest(trees || views) t
     UNION SELECT d.classid, d.objid FROM pg_depend d JOIN p ON d.refclassid = p.classid AND d.refobjid = p.objid WHERE d.deptype IN ('a', 'i', 'P', 'S'))
   SELECT array_agg(classid), array_agg(objid) INTO part_classes, part_objects FROM p;
  FOR one IN
    SELECT DISTINCT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS what, r.ev_class, v.relkind, k.contype, k.conrelid, k.conparentid, k.confrelid,
     quote_ident(n.nspname) || '.' || quote_ident(v.relname) AS view_name, quote_ident(m.nspname) || '.' || quote_ident(h.relname) AS child, k.conname
    FROM pg_depend d JOIN unnest(part_classes, part_objects) p(classid, objid) ON d.refclassid = p.classid AND d.refobjid = p.objid
     LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
     LEFT JOIN pg_class v ON v.oid = r.ev_class LEFT JOIN pg_namespace n ON n.oid = v.relnamespace
     LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
     LEFT JOIN pg_class h ON h.oid = k.conrelid LEFT JOIN pg_namespace m ON m.oid = h.relnamespace
    WHERE d.deptype = 'n' AND NOT EXISTS (SELECT FROM unnest(part_classes, part_objects) o(classid, objid) WHERE o.classid = d.classid AND o.objid = d.objid)
  LOOP
    IF one.relkind = 'v' THEN
      view_texts := view_texts || format('CREATE OR REPLACE VIEW %s AS %s', one.view_name, pg_get_viewdef(one.ev_class));
    ELSIF one.contype = 'f' AND one.conparentid = 0 AND one.confrelid = ANY (roots) THEN
      later := later || format('ALTER TABLE %s ADD CONSTRAINT %I %s NOT VALID', one.child, one.conname, replace(pg_get_constraintdef(one.objid), ' NOT VALID', ''));
    ELSE
      RAISE EXCEPTION '% is built on it', one.what;
    END IF;
  END LOOP;
  FOR one IN
    SELECT DISTINCT pg_describe_object(d.refclassid, d.refobjid, 0) AS what
    FROM pg_depend d JOIN unnest(part_classes, part_objects) p(classid, objid) ON d.classid = p.classid AND d.objid = p.objid
     LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    WHERE d.deptype = 'n' AND d.refclassid <> 'pg_namespace'::regclass AND d.classid <> 'pg_trigger'::regclass AND k.contype IS DISTINCT FROM 'f'
     AND NOT EXISTS (SELECT FROM unnest(part_classes, part_objects) o(classid, objid) WHERE o.classid = d.refclassid AND o.objid = d.refobjid)
     AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
  LOOP
    RAISE EXCEPTION 'it is built on %', one.what;
  END LOOP;

  -- Foreign keys from and to others, and triggers that run others' functions, are taken off: what is aside must not be noticed.
  FOR one IN
    SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname) AS step
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = ANY (trees)) <> (k.confrelid = ANY (trees))
   UNION ALL SELECT format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc f ON f.oid = t.tgfoid
     JOIN pg_namespace s ON s.oid = f.pronamespace
    WHERE t.tgrelid = ANY (trees || views) AND NOT t.tgisinternal AND t.tgparentid = 0 AND s.nspname <> 'reprieve'
  LOOP
    EXECUTE one.step;
  END LOOP;

  FOR one IN
    SELECT format('%I.%I', n.nspname, c.relname) AS name, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END AS kind,
     rtrim(pg_get_viewdef(c.oid), ';') || CASE c.relkind WHEN 'v' THEN '' ELSE ' WITH NO DATA' END AS text, pg_get_userbyid(c.relowner) AS owner
    FROM unnest(views) WITH ORDINALITY v(oid, place) JOIN pg_class c ON c.oid = v.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY v.place
  LOOP
    view_doubles := view_doubles || one.name;
    double_texts := double_texts || ARRAY[format('CREATE %s %s AS %s', one.kind, one.name, one.text), format('ALTER %s %s OWNER TO %I', one.kind, one.name, one.owner)];
  END LOOP;
  FOR one IN
    SELECT c.oid, n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner) AS owner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (roots || views)
  LOOP
    schema_name := 'reprieve_aside_' || one.oid;
    -- Not IF NOT EXISTS: a schema that somebody made before could be theirs to look into.
    EXECUTE format('CREATE SCHEMA %I', schema_name);
    EXECUTE format('COMMENT ON SCHEMA %I IS %L', schema_name, 'set aside by Reprieve at ' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'));
    IF one.oid = ANY (views) THEN
      EXECUTE format('ALTER %s %I.%I SET SCHEMA %I', CASE one.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, one.nspname, one.relname, schema_name);
      CONTINUE;
    END IF;
    SELECT COALESCE(array_agg(pg_get_constraintdef(k.oid)), '{}') INTO uniques FROM pg_constraint k WHERE k.conrelid = one.oid AND k.contype IN ('p', 'u');
    FOR step IN
      SELECT format('ALTER TABLE %I.%I SET SCHEMA %I', n.nspname, c.relname, schema_name)
      FROM (SELECT one.oid AS oid UNION SELECT p.relid FROM pg_partition_tree(one.oid) p) t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    LOOP
      EXECUTE step;
    END LOOP;
    double := format('%I.%I', one.nspname, one.relname);
    IF later = '{}' AND double_texts = '{}' AND view_texts = '{}' THEN
      EXECUTE format('CREATE TABLE %s ()', double);
    ELSE
      EXECUTE format('CREATE TABLE %s (LIKE %I.%I)', double, schema_name, one.relname);
      FOREACH step IN ARRAY uniques LOOP
        EXECUTE format('ALTER TABLE %s ADD %s', double, step);
      END LOOP;
    END IF;
    EXECUTE format('ALTER TABLE %s OWNER TO %I', double, one.owner);
    doubles := doubles || double::regclass::oid;
  END LOOP;
  -- Who stood on the tables stands on their doubles, so that the DROP meets, names and takes along what it would have.
  FOREACH step IN ARRAY later || double_texts || view_texts LOOP
    EXECUTE step;
  END LOOP;
  RETURN (doubles || ARRAY(SELECT name::regclass::oid FROM unnest(view_doubles) name))::text;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END;
