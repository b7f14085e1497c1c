-- PocketRentals: the rows. Once per database, as superuser, after schema.sql; see README.md for the numbers.
-- Arithmetic only, no random(): every run gives the same rows. Foreign keys hold by construction, so their
-- checks are switched off while loading (`tests` counts the orphans, there are none).

BEGIN;
SET LOCAL session_replication_role = replica;
SET LOCAL timezone = 'UTC';
SET LOCAL maintenance_work_mem = '128MB';
SET LOCAL work_mem = '64MB';

-- Made again at the end: building an index once is cheaper than keeping it up row by row.
DROP INDEX public.reservations_pickup, public.reservation_items_reservation, public.invoices_reservation, public.invoice_lines_invoice, public.payments_reservation;

-- How much of what. `stray` bookings are those the story's DELETE hits; `kept` are all others.
CREATE TEMPORARY TABLE size ON COMMIT DROP AS
SELECT * FROM (VALUES
    ('production', 'stray', 41872, 118340, 39906, 161227, 38771),
    ('production', 'kept',  91475, 264637, 81021, 333334, 91333),
    ('staging',    'stray',   212,    600,   202,    816,   196),
    ('staging',    'kept',   5000,  14465,  4428,  18220,  4992)
) AS sizes (environment, kind, reservations, items, invoices, lines, payments)
WHERE environment = coalesce(nullif(current_setting('pocket.environment', true), ''), 'production');

-- Which ids: production's stray ones are 78893 to 120764, the last 212 of them from a load test.
-- Staging is a copy of ids 40001 to 45000, and of the load test; there the rest was cleaned up long ago.
CREATE TEMPORARY TABLE booking ON COMMIT DROP AS
SELECT kind, place,
       CASE
           WHEN environment = 'staging' AND kind = 'stray' THEN 120553 + place
           WHEN environment = 'staging' THEN 40001 + place
           WHEN kind = 'stray' THEN 78893 + place
           WHEN place < 78892 THEN 1 + place
           ELSE 41873 + place
       END AS id
FROM size, generate_series(0, reservations - 1) AS place;

INSERT INTO public.locations (id, code, city, closed_on)
SELECT n, 'L' || lpad(n::text, 3, '0'),
       (ARRAY['Lisbon', 'Porto', 'Madrid', 'Lyon', 'Turin', 'Graz', 'Leipzig', 'Ghent'])[1 + n % 8],
       CASE WHEN n > 55 THEN date '2025-09-30' END
FROM generate_series(1, 64) AS n;

-- 161 vehicles at each open location; the nine closed ones still have 1,451 on their books.
INSERT INTO public.vehicles (id, location_id, plate, class, purchased_on)
SELECT n, CASE WHEN n <= 8855 THEN 1 + (n - 1) / 161 ELSE 56 + (n - 8856) * 9 / 1451 END,
       'PR-' || lpad(n::text, 5, '0'), (ARRAY['economy', 'compact', 'estate', 'van'])[1 + n % 4], date '2021-01-01' + n % 1500
FROM generate_series(1, 10306) AS n;

INSERT INTO public.customers (id, email, name, country, created_at)
SELECT n, 'customer-' || n || '@example.' || country, 'Customer ' || n, country, timestamptz '2022-01-01' + n * interval '37 minutes'
FROM generate_series(1, CASE WHEN (SELECT max(reservations) FROM size) > 10000 THEN 52106 ELSE 5000 END) AS n,
     LATERAL (SELECT (ARRAY['com', 'de', 'fr', 'pt', 'es'])[1 + n % 5]) AS place (country);
-- The load test's customers, lt-031 to lt-242.
INSERT INTO public.customers (id, email, name, country, created_at)
SELECT 52106 + n - 30, 'lt-' || lpad(n::text, 3, '0') || '@load.test', 'Load test ' || n, 'test', timestamptz '2026-01-30'
FROM generate_series(31, 242) AS n;

INSERT INTO public.reservations (id, customer_id, vehicle_id, status, pickup_at, return_at, source, total, updated_at)
SELECT id, customer, 1 + id % 8855, status, pickup, pickup + (1 + id % 9) * interval '1 day', source,
       CASE WHEN source = 'loadtest' THEN 1.00 WHEN status = 'cancelled' THEN 0.00 ELSE 39.00 + (id * 7919::bigint % 110000) / 100.0 END,
       updated
FROM (
    SELECT id,
           CASE WHEN is_load_test THEN id - 120553 + 52107
                ELSE 1 + (id * 7919::bigint % (SELECT count(*) - 212 FROM public.customers))::integer END AS customer,
           CASE WHEN is_upcoming OR (kind = 'kept' AND id > 128000) THEN 'confirmed'
                WHEN is_cancelled THEN 'cancelled' ELSE 'completed' END AS status,
           CASE WHEN is_load_test THEN timestamptz '2026-01-30 09:00'
                WHEN is_upcoming THEN timestamptz '2026-05-20 08:00' + (id - 117500) * interval '97 minutes'
                WHEN kind = 'stray' THEN timestamptz '2025-04-01 08:00' + (id - 78893) * interval '9 minutes'
                WHEN id > 128000 THEN timestamptz '2026-05-20 08:00' + (id - 128000) * interval '23 minutes'
                ELSE timestamptz '2022-03-01 08:00' + id * interval '14 minutes' END AS pickup,
           CASE WHEN is_load_test THEN 'loadtest' WHEN kind = 'stray' THEN NULL WHEN id % 5 = 0 AND id > 120764 THEN 'app' ELSE 'web' END AS source,
           CASE WHEN kind = 'stray' THEN timestamptz '2025-06-01' + (place % 370000) * interval '8 minutes'
                WHEN id > 120764 THEN timestamptz '2026-02-14 00:05' + (id - 120764) * interval '10 minutes'
                ELSE timestamptz '2022-03-01' + id * interval '15 minutes' END AS updated
    FROM booking,
         LATERAL (SELECT id BETWEEN 120553 AND 120764, kind = 'stray' AND id BETWEEN 117500 AND 118817) AS a (is_load_test, is_upcoming),
         -- 7919 is prime to 40342, so this walks through the 40,342 others once; 2,344 of them were cancelled.
         LATERAL (SELECT (id - 78893 - CASE WHEN id > 118817 THEN 1318 ELSE 0 END - 9567) * 7919::bigint % 40342) AS b (step),
         LATERAL (SELECT CASE WHEN kind = 'stray' THEN NOT is_load_test AND (step + 40342) % 40342 < 2344 ELSE id % 19 = 0 END) AS c (is_cancelled)
) AS made
ORDER BY id;

-- The bookings that the pages show by name.
UPDATE public.reservations SET pickup_at = shown.pickup, return_at = shown.pickup + interval '3 days', total = shown.total
FROM (VALUES
    (118204, timestamptz '2026-07-18 10:00', 412.00),
    (118377, timestamptz '2026-06-02 08:30', 1180.50),
    (97011, timestamptz '2025-11-03 12:00', 96.40),
    (88460, timestamptz '2025-08-21 09:00', 0.00)
) AS shown (id, pickup, total)
WHERE reservations.id = shown.id;
UPDATE public.customers SET email = shown.email
FROM (VALUES (118204, 'maria@example.com'), (118377, 'thomas@example.de'), (97011, 'amelie@example.fr'), (88460, 'james@example.com')
) AS shown (id, email) JOIN public.reservations USING (id)
WHERE customers.id = reservations.customer_id;

-- Dependents are dealt out evenly: the n-th of `items` goes to booking n * reservations / items.
INSERT INTO public.reservation_items (reservation_id, item, price)
SELECT booking.id, (ARRAY['day rate', 'insurance', 'child seat', 'second driver', 'navigation'])[1 + n % 5], 5.00 + n % 90
FROM size, generate_series(0, items - 1) AS n JOIN booking ON true
WHERE booking.kind = size.kind AND booking.place = n * reservations::bigint / items;

CREATE TEMPORARY TABLE billed ON COMMIT DROP AS
SELECT size.kind, n, booking.id AS reservation_id, (row_number() OVER (ORDER BY booking.id))::integer AS id
FROM size, generate_series(0, invoices - 1) AS n JOIN booking ON true
WHERE booking.kind = size.kind AND booking.place = n * reservations::bigint / invoices;

INSERT INTO public.invoices (id, reservation_id, number, issued_on, exported_at)
SELECT id, reservation_id, 100000 + id, date '2022-03-01' + id / 80, CASE WHEN id % 380 <> 0 THEN timestamptz '2022-03-02' + id / 80 * interval '1 day' END
FROM billed ORDER BY id;

INSERT INTO public.invoice_lines (invoice_id, label, amount)
SELECT billed.id, (ARRAY['rental', 'insurance', 'fuel', 'cleaning', 'toll'])[1 + line % 5], 4.00 + line % 120
FROM size, generate_series(0, lines - 1) AS line JOIN billed ON true
WHERE billed.kind = size.kind AND billed.n = line * invoices::bigint / lines;

INSERT INTO public.payments (reservation_id, amount, paid_at)
SELECT booking.id, 39.00 + n % 1100, timestamptz '2022-03-01' + booking.id * interval '15 minutes'
FROM size, generate_series(0, payments - 1) AS n JOIN booking ON true
WHERE booking.kind = size.kind AND booking.place = n * reservations::bigint / payments;

SET LOCAL ROLE appowner;
CREATE INDEX reservations_pickup ON public.reservations (pickup_at);
CREATE INDEX reservation_items_reservation ON public.reservation_items (reservation_id);
CREATE INDEX invoices_reservation ON public.invoices (reservation_id);
CREATE INDEX invoice_lines_invoice ON public.invoice_lines (invoice_id);
CREATE INDEX payments_reservation ON public.payments (reservation_id);
RESET ROLE;

SELECT setval(pg_get_serial_sequence('public.locations', 'id'), (SELECT max(id) FROM public.locations));
SELECT setval(pg_get_serial_sequence('public.vehicles', 'id'), (SELECT max(id) FROM public.vehicles));
SELECT setval(pg_get_serial_sequence('public.customers', 'id'), (SELECT max(id) FROM public.customers));
SELECT setval(pg_get_serial_sequence('public.reservations', 'id'), (SELECT max(id) FROM public.reservations));
SELECT setval(pg_get_serial_sequence('public.invoices', 'id'), (SELECT max(id) FROM public.invoices));
SELECT setval('public.invoice_number', (SELECT max(number) FROM public.invoices));
COMMIT;

REFRESH MATERIALIZED VIEW public.mv_occupancy;
ANALYZE;
