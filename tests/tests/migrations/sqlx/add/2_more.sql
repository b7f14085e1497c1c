ALTER TABLE cars ADD COLUMN colour text NOT NULL DEFAULT 'white';
CREATE TABLE services (id bigserial PRIMARY KEY, car bigint REFERENCES cars, done date);
