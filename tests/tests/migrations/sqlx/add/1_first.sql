CREATE TABLE cars (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, plate text NOT NULL UNIQUE, price numeric(8,2) NOT NULL DEFAULT 1);
CREATE TABLE rentals (id bigserial PRIMARY KEY, car bigint NOT NULL REFERENCES cars ON DELETE CASCADE, begins timestamptz NOT NULL DEFAULT now());
CREATE INDEX rentals_car ON rentals (car);
